"""Lesson 04: convert a checkpoint."""
