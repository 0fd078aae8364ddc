"""Read a command line that somebody wrote, with the argparse that the tools themselves use."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence

from engineroom.trtllm.commands import MODES, Command, command
from engineroom.trtllm.flags import FlagError, tools
from engineroom.trtllm.values import MISSING


def parse(written: str | Sequence[str]) -> Command:
    """Check a whole line: ``mpirun``, ``docker run`` or ``python3`` may stand before the tool.

    Long flags may be cut short where the real tool allows it. Raises FlagError with all that is wrong.
    """
    words = shlex.split(written.replace("\\\n", " ")) if isinstance(written, str) else list(written)
    known = {tool.name for tool in tools().values()}
    at = next((i for i, word in enumerate(words) if os.path.basename(word) in known), None)
    if at is None:
        raise FlagError("line", [f"none of the tools known here is in it: {', '.join(sorted(known))}."])
    launcher = words[:at]
    if launcher and os.path.basename(launcher[-1]) in ("python", "python3"):
        launcher.pop()
    return _tool_line(words[at], words[at + 1 :], launcher)


def _tool_line(program: str, words: list[str], launcher: list[str]) -> Command:
    base = os.path.basename(program)
    if base == "convert_checkpoint.py":
        family = os.path.basename(os.path.dirname(program)) or "llama"
        if f"convert {family}" not in tools():
            raise FlagError(
                base, [f"that of {family!r} is not transcribed here, only those of llama and qwen."]
            )
        return _plain(f"convert {family}", words, launcher)
    if base == "trtllm-bench":
        return _bench(words, launcher)
    if base == "trtllm-serve":
        others = ("disaggregated", "disaggregated_mpi_worker", "mm_embedding_serve")
        if words and words[0] in others:
            raise FlagError(base, [f"the subcommand {words[0]} is not transcribed here, only serve."])
        return _plain("serve", words[1:] if words[:1] == ["serve"] else words, launcher)
    return _plain(next(name for name, tool in tools().items() if tool.name == base), words, launcher)


def _plain(name: str, words: list[str], launcher: list[str]) -> Command:
    args, loose = split(name, words)
    positional = loose.pop(0) if loose and tools()[name].positional else None
    return _command(name, args, loose, model=positional, launcher=launcher)


def _bench(words: list[str], launcher: list[str]) -> Command:
    values = {i + 1 for i, word in enumerate(words) if word.startswith("-") and "=" not in word}
    at = next((i for i, word in enumerate(words) if word in MODES and i not in values), None)
    if at is None:
        raise FlagError("trtllm-bench", [f"needs one of the subcommands known here: {', '.join(MODES)}."])
    name = f"bench {words[at]}"
    group, before = split("bench", words[:at])
    args, after = split(name, words[at + 1 :])
    return _command(name, args, before + after, group=group, launcher=launcher)


def _command(name: str, args: dict[str, object], loose: list[str], **rest: object) -> Command:
    stray = [f"{word!r} belongs to no flag." for word in loose]
    try:
        made = command(name, args, **rest)
    except FlagError as error:
        raise FlagError(tools()[name].name, error.problems + stray) from None
    if stray:
        raise FlagError(tools()[name].name, stray)
    return made


def split(name: str, words: list[str]) -> tuple[dict[str, object], list[str]]:
    """Words of the tool ``name`` as (flags with their values, words that belong to no flag)."""
    found, extra = _parser(name).parse_known_args(words)
    args, loose, after_unknown = dict(vars(found)), [], False
    for word in extra:
        if word.startswith("-") and word != "-":
            flag, equals, _ = word.partition("=")
            args[flag], after_unknown = MISSING, not equals
        elif after_unknown:
            after_unknown = False  # the value of that unknown flag
        else:
            loose.append(word)
    return args, loose


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise FlagError(self.prog, [f"{message}."])


def _parser(name: str) -> _Parser:
    """An argparse parser with the tool's flags; values stay text, a missing one is ``MISSING``."""
    tool = tools()[name]
    parser = _Parser(prog=tool.name, add_help=False, allow_abbrev=tool.parser == "argparse")
    for first, flag in tool.flags.items():
        names = [first, *flag.aliases]
        if flag.type == "switch":
            parser.add_argument(*names, dest=first, action="store_true", default=argparse.SUPPRESS)
            if flag.off:
                parser.add_argument(flag.off, dest=first, action="store_false", default=argparse.SUPPRESS)
            continue
        parser.add_argument(
            *names,
            dest=first,
            action="append" if flag.repeat else "store",
            nargs="+" if flag.many else "?",
            const=None if flag.many else flag.bare or MISSING,
            default=argparse.SUPPRESS,
        )
    return parser
