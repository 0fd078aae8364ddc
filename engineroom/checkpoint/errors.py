"""The error of this package."""

from __future__ import annotations

from engineroom.kit.errors import UserError


class CheckpointError(UserError, ValueError):
    """Something is wrong with a model folder, a checkpoint, or an option.

    The message says what is wrong, what was expected, and what to do.
    """
