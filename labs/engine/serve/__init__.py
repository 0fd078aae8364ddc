"""Lesson 06: the engine behind OpenAI's HTTP API."""
