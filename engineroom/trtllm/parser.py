"""Read a command line that somebody wrote for TensorRT-LLM's tools.

Kept because the tools' own parsers need TensorRT-LLM installed. Python's argparse, filled from flags.json, splits a
line as they do, abbreviated flags included; flags.py then checks the values.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import NoReturn

from engineroom.trtllm.commands import BENCH_MODES, Command, command
from engineroom.trtllm.flags import FlagError, tools
from engineroom.trtllm.values import MISSING, Flag

OTHER_SERVERS = (
    "disaggregated",
    "disaggregated_mpi_worker",
    "mm_embedding_serve",
)  # subcommands of trtllm-serve


def parse(line: str | Sequence[str]) -> Command:
    """Check a whole line, in which ``mpirun``, ``docker run`` or ``python3`` may stand before the tool.

    Long flags may be abbreviated where the real tool allows it. Raises FlagError with every problem.
    """
    words = shlex.split(line.replace("\\\n", " ")) if isinstance(line, str) else list(line)
    names = {tool.name for tool in tools().values()}
    index = next((i for i, word in enumerate(words) if os.path.basename(word) in names), None)
    if index is None:
        raise FlagError("line", [f"it contains none of the tools known here: {', '.join(sorted(names))}."])
    launcher = words[:index]
    if launcher and os.path.basename(launcher[-1]) in ("python", "python3"):
        launcher.pop()
    return _parse_tool(words[index], words[index + 1 :], launcher)


def _parse_tool(program: str, words: list[str], launcher: list[str]) -> Command:
    basename = os.path.basename(program)
    if basename == "trtllm-bench":
        return _parse_bench(words, launcher)
    if basename == "convert_checkpoint.py":
        family = os.path.basename(os.path.dirname(program)) or "llama"
        name = f"convert {family}"
        if name not in tools():
            problem = f"the script of {family!r} is not transcribed here, only those of llama and qwen."
            raise FlagError(basename, [problem])
    elif basename == "trtllm-serve":
        name = "serve"
        if words and words[0] in OTHER_SERVERS:
            raise FlagError(basename, [f"the subcommand {words[0]} is not transcribed here, only serve."])
        words = words[1:] if words[:1] == ["serve"] else words
    else:
        name = next(name for name, tool in tools().items() if tool.name == basename)
    args, positionals = split(name, words)
    model = positionals.pop(0) if positionals and tools()[name].positional else None
    return _command(name, args, positionals, model=model, launcher=launcher)


def _parse_bench(words: list[str], launcher: list[str]) -> Command:
    """The line of trtllm-bench: flags of the group, one of BENCH_MODES, flags of that mode."""
    values = {i + 1 for i, word in enumerate(words) if word.startswith("-") and "=" not in word}
    index = next((i for i, word in enumerate(words) if word in BENCH_MODES and i not in values), None)
    if index is None:
        problem = f"needs one of the subcommands known here: {', '.join(BENCH_MODES)}."
        raise FlagError("trtllm-bench", [problem])
    name = f"bench {words[index]}"
    group_flags, group_positionals = split("bench", words[:index])
    args, positionals = split(name, words[index + 1 :])
    return _command(name, args, group_positionals + positionals, group_flags=group_flags, launcher=launcher)


def _command(
    name: str,
    args: dict[str, object],
    stray_words: list[str],
    *,
    launcher: list[str],
    model: str | None = None,
    group_flags: Mapping[str, object] | None = None,
) -> Command:
    stray = [f"{word!r} belongs to no flag." for word in stray_words]
    try:
        checked = command(name, args, model=model, group_flags=group_flags, launcher=launcher)
    except FlagError as error:
        raise FlagError(tools()[name].name, error.problems + stray) from None
    if stray:
        raise FlagError(tools()[name].name, stray)
    return checked


def split(name: str, words: list[str]) -> tuple[dict[str, object], list[str]]:
    """Split the words of the tool ``name`` into flags with their values, and words that belong to no flag.

    A flag that the tool does not have is among the flags, with the value MISSING.
    """
    namespace, extra_words = _parser(name).parse_known_args(words)
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
