"""What is wrong with the settings or the outcome of a load test."""

from __future__ import annotations

from engineroom.kit.errors import UserError


class LoadError(UserError, ValueError):
    """Invalid settings of a load test, or results without statistics because every request failed."""
