"""The errors that are meant for a person, told apart from faults of the program."""

from __future__ import annotations


class UserError(Exception):
    """Something that the person can mend: the message says what was wrong, what was expected and what to do."""
