"""Split the words of one tool into flags and the rest.

Kept because the tools' own parsers need TensorRT-LLM installed. Python's argparse, filled from flags.json, splits the
words as the tools do, abbreviated flags included.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from engineroom.trtllm.flags import FlagError, tools
from engineroom.trtllm.values import MISSING, Flag, ShellWord, expands


def split(name: str, words: list[str]) -> tuple[dict[str, object], list[str]]:
    """Split the words of the tool ``name`` into flags with their values, and words that belong to no flag.

    A flag that the tool does not have is among the flags, with the value MISSING.
    """
    namespace, extra_words = _parser(name).parse_known_args(_without_equals(words))
    args = dict(vars(namespace))
    positionals: list[str] = []
    after_unknown_flag = False
    for word in extra_words:
        if word.startswith("-") and word != "-":
            flag, equals, _ = word.partition("=")
            args[flag] = MISSING
            after_unknown_flag = not equals
        elif after_unknown_flag:
            after_unknown_flag = False  # this word is the value of that flag
        else:
            positionals.append(word)
    return args, positionals


def _without_equals(words: list[str]) -> list[str]:
    """The words, with ``--port=$PORT`` as two, so that the value keeps what is known of it."""
    parts: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if (
            expands(word)
            and isinstance(word, ShellWord)
            and equals
            and "$" not in flag
            and flag.startswith("-")
        ):
            parts += [flag, ShellWord(value, word.source.partition("=")[2], expands=True)]
        else:
            parts.append(word)
    return parts


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FlagError(self.prog, [f"{message}."])


def _parser(name: str) -> _Parser:
    """An argparse parser with the tool's flags. Values stay text; a missing one is ``MISSING``."""
    tool = tools()[name]
    parser = _Parser(prog=tool.name, add_help=False, allow_abbrev=tool.parser == "argparse")
    for first_name, flag in tool.flags.items():
        if flag.type == "switch":
            _add_switch(parser, first_name, flag)
            continue
        parser.add_argument(
            first_name,
            *flag.aliases,
            dest=first_name,
            action="append" if flag.repeat else "store",
            nargs=flag.nargs or "?",
            const=None if flag.nargs else flag.const or MISSING,
            default=argparse.SUPPRESS,
        )
    return parser


def _add_switch(parser: _Parser, name: str, flag: Flag) -> None:
    parser.add_argument(name, *flag.aliases, dest=name, action="store_true", default=argparse.SUPPRESS)
    if flag.off:
        parser.add_argument(flag.off, dest=name, action="store_false", default=argparse.SUPPRESS)
