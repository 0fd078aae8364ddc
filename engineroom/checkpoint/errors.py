"""What is wrong with a model folder, a checkpoint, or a wish."""

from __future__ import annotations

from engineroom.kit.errors import UserError


class CheckpointError(UserError, ValueError):
    """The message says what was wrong, what was expected, and what to do."""
