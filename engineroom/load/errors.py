"""What is wrong with the settings or the outcome of a load test."""

from __future__ import annotations

from engineroom.kit.errors import UserError


class LoadError(UserError, ValueError):
    """Settings that no load test can have, or results that have no statistics: every request failed."""
