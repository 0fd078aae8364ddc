"""Shared by all lessons: exercise checks, progress, pictures, the list of lessons, the bill."""
