"""Lesson 01: serve with vLLM."""
