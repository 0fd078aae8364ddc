"""The course model: its data, how it is trained, and its card."""
