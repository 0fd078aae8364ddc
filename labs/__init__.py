"""The rooms of the lessons: checks, pictures and helpers, one package a lesson, named as its notebook."""
