"""Lesson 03: where the memory goes, and who computes with whom."""
