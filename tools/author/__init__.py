"""The author's tools: one source per lesson, and what is made and checked from it."""
