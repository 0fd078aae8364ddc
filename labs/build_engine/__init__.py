"""Lesson 05: build an engine."""
