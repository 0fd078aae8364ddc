"""The base class of all errors that the user can fix, as opposed to bugs in the program."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix: the message says what was wrong, what was expected and what to do."""
