"""What is wrong with a model folder, a checkpoint, or a wish."""

from __future__ import annotations


class CheckpointError(ValueError):
    """The message says what was wrong, what was expected, and what to do."""
