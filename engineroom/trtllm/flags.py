"""Which flags the tools of TensorRT-LLM 1.2.1 have, and what is wrong with a set of arguments.

flags.json was transcribed from the source of the tools; it names each file with its commit. The tools were not run.
Where two stored versions of a file differ, flags.json has the flags of both.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from engineroom.kit.errors import UserError
from engineroom.trtllm.values import Flag, FlagValue, convert_value, expands


class FlagError(UserError, ValueError):
    """Arguments that the real tool refuses or ignores; ``problems`` has a sentence for each."""

    def __init__(self, tool: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{tool}: {problem}" for problem in problems))

    @classmethod
    def joined(cls, errors: list[FlagError]) -> FlagError:
        """One error with the problems of several commands, each under the name of its tool."""
        error = cls("line", [problem for error in errors for problem in error.problems])
        error.args = ("\n".join(map(str, errors)),)
        return error


class FlagRule(BaseModel):
    """A rule for a command line that has all flags of ``when`` with one of the values (or any, if none is named).

    Such a line must have the flags of ``needs``, and none of those in ``forbids``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    when: dict[str, list[str]]
    needs: dict[str, list[str]] = {}
    forbids: list[str] = []
    why: str

    def problems(self, args: Mapping[str, object], *, complete: bool = True) -> list[str]:
        """A sentence for each flag that ``args`` must not have, and for each that it lacks if it is ``complete``."""
        if not all(_is_set(args, name, values) for name, values in self.when.items()):
            return []
        condition = " ".join(_words(name, values) for name, values in self.when.items())
        problems: list[str] = []
        for name, values in self.needs.items():
            if complete and not expands(args.get(name)) and not _is_set(args, name, values):
                problems.append(f"{condition} needs {_words(name, values)}: {self.why}.")
        for name in self.forbids:
            if name in args:
                excludes = "" if name in self.when else f" excludes {name}"
                problems.append(f"{condition}{excludes}: {self.why}.")
        return problems


class Tool(BaseModel):
    """One program: how it is called, its flags, and flags that people often use but the program does not have."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    program: list[str]
    parser: Literal["argparse", "click"]
    positional: str | None = None
    sources: list[str]
    one_of: list[list[str]] = []
    flags: dict[str, Flag]
    removed: dict[str, tuple[str, str]]
    rules: list[FlagRule]

    @property
    def executable(self) -> str:
        """The program, or its file in NVIDIA's container."""
        return next(word for word in self.program if word != "python3")

    @property
    def name(self) -> str:
        """The program as people call it."""
        return os.path.basename(self.executable)

    def find(self, name: str) -> str | None:
        """The flag's first name for any of its names or its Python keyword; None if there is no such flag."""
        for first_name, flag in self.flags.items():
            names = (first_name, *flag.aliases)
            if name in names or name in map(_keyword, names):
                return first_name
        return None

    def unknown(self, name: str) -> str:
        """The sentence about a flag that does not exist: what to use in its place, or the nearest names."""
        flag = name if name.startswith("-") else f"--{name}"
        replacement, why = self.removed.get(flag, ("", ""))
        if replacement:
            return f"no flag {flag}. Use {replacement} ({why})."
        if why:
            return f"no flag {flag}. {why[0].upper()}{why[1:]}."
        names = [known for first, entry in self.flags.items() for known in (first, *entry.aliases)]
        near = difflib.get_close_matches(flag, names, n=3, cutoff=0.7)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See `engineroom trtllm flags`."
        return f"no flag {flag} in TensorRT-LLM {version()}. {hint}"


def check(name: str, args: Mapping[str, object], *, complete: bool = True) -> dict[str, FlagValue]:
    """``args`` of the tool ``name`` (see ``tools``) by full flag name, in their types, without None and False.

    Keys are flags ("--max_seq_len") or Python keywords (max_seq_len). Raises FlagError with every problem: unknown
    or removed flags, a wrong type, a value outside the choices, missing flags, flags that exclude each other.
    Flags are not missing when ``args`` are not ``complete``: the shell adds more words, as in ``trtllm-build $FLAGS``.
    """
    tool = tools()[name]
    values: dict[str, FlagValue] = {}
    problems: list[str] = []
    for key, value in args.items():
        flag_name = tool.find(key)
        if flag_name is None:
            problems.append(tool.unknown(key))
        elif flag_name in values:
            problems.append(f"{flag_name} is given twice.")
        elif value is not None:
            try:
                values[flag_name] = convert_value(flag_name, tool.flags[flag_name], value)
            except ValueError as error:
                problems.append(str(error))
    values = {key: value for key, value in values.items() if value is not False or tool.flags[key].off}
    if complete:
        problems += _missing(tool, args)
    for rule in tool.rules:
        problems += rule.problems(values, complete=complete)
    if problems:
        raise FlagError(tool.name, problems)
    return values


def _missing(tool: Tool, args: Mapping[str, object]) -> list[str]:
    """A sentence for each required flag, or group of flags one of which is required, that ``args`` lacks."""
    present = {tool.find(key) for key, value in args.items() if value is not None}
    required = [[name] for name, flag in tool.flags.items() if flag.required]
    return [
        f"{' or '.join(names)} is required." for names in required + tool.one_of if not present & set(names)
    ]


def _is_set(args: Mapping[str, object], name: str, values: list[str]) -> bool:
    return name in args and (not values or str(args[name]) in values)


def _words(name: str, values: list[str]) -> str:
    return " ".join([name, *values[:1]])


def _keyword(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


@cache
def _reference() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("flags.json").read_text())


@cache
def tools() -> dict[str, Tool]:
    """Every tool by the name that the functions of commands.py use: "build", "convert llama", "bench throughput" …"""
    return {name: Tool.model_validate(tool) for name, tool in _reference()["tools"].items()}


def version() -> str:
    """The version of TensorRT-LLM that has these flags."""
    return _reference()["version"]


def image() -> str:
    """The newest container that has this version (Triton's documentation, compatibility table)."""
    return _reference()["image"]
