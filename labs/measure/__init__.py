"""Lesson 02: measure."""
