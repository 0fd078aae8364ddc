"""Characters that web pages and word processors put in place of hyphens, quotes and blanks."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

from engineroom.trtllm.launchers import BLANKS, DASHES, QUOTES, plain
from engineroom.trtllm.values import ShellWord


def typographic_problems(words: Sequence[str]) -> list[str]:
    """A sentence for each word that was written without a shell's quotes and has such a character at a telling place.

    Only words with a source, which came from a shell's text, are looked at.
    """
    problems = []
    program = os.path.basename(words[0]) if words else ""
    if dash := next((mark for mark in program.lstrip(DASHES) if mark in DASHES), None):
        problems.append(f"{program!r} has {_name(dash)}, which is no hyphen. Type {plain(program)}.")
    return problems + [
        text for word in words if isinstance(word, ShellWord) and (text := _problem(word.source))
    ]


def _problem(source: str) -> str | None:
    value = source.partition("=")[2]
    if source[0] in DASHES and not source[1:2].isdigit():
        name = source.lstrip(DASHES + "-")
        hyphens = "-" if len(name.partition("=")[0]) == 1 else "--"
        return f"{source!r} starts with {_name(source[0])}, which is no hyphen. Type {hyphens}{name}."
    if source.startswith("-") and source[1:2] and source[1] in DASHES:
        return f"{source!r} has {_name(source[1])}, which is no hyphen. Type --{source.lstrip(DASHES + '-')}."
    quote = next((mark for mark in (source[0], value[:1], source[-1]) if mark and mark in QUOTES), None)
    if quote:
        return f"{source!r} has {_name(quote)}, which is no quote for a shell. Type \" or '."
    blank = next((mark for mark in source if mark in BLANKS), None)
    if blank and source[0] not in "\"'" and value[:1] not in ("'", '"'):
        return f"{source!r} has {_name(blank)}, at which a shell does not split words. Type a plain blank."
    return None


def _name(character: str) -> str:
    return f"the {unicodedata.name(character).lower()} (U+{ord(character):04X})"
