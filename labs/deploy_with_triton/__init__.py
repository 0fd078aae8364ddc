"""Lesson 10: deploy with Triton."""
