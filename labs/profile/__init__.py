"""Lesson 11: where the time of a step goes."""
