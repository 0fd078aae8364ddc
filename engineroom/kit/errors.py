"""The base of all errors that a person can mend, as distinct from faults of the program."""

from __future__ import annotations


class UserError(Exception):
    """An error that the person can mend: the message says what was wrong, what was expected and what to do."""
