"""Which flags the tools of TensorRT-LLM 1.2.1 have, and what is wrong with a set of arguments.

flags.json was transcribed from the tools' source, which it names with commits; nothing was run. Where two
stored versions of a file differ, the reference has the flags of both.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engineroom.kit.errors import UserError
from engineroom.trtllm.values import Flag, Value, typed


class FlagError(UserError, ValueError):
    """Arguments that the real tool refuses or ignores; ``problems`` has a sentence for each."""

    def __init__(self, tool: str, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{tool}: {problem}" for problem in problems))


class Rule(BaseModel):
    """When all ``given`` are there with one of their values (none named: any), the rest must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    given: dict[str, list[str]]
    needs: dict[str, list[str]] = {}
    forbids: list[str] = []
    why: str

    def problems(self, args: Mapping[str, object]) -> list[str]:
        if not all(_has(args, name, values) for name, values in self.given.items()):
            return []
        text = " ".join(" ".join([name, *values[:1]]) for name, values in self.given.items())
        found = []
        for name, values in self.needs.items():
            if not _has(args, name, values):
                found.append(f"{text} needs {' '.join([name, *values[:1]])}: {self.why}.")
        for name in self.forbids:
            if name in args:
                found.append(
                    f"{text}: {self.why}." if name in self.given else f"{text} excludes {name}: {self.why}."
                )
        return found


class Tool(BaseModel):
    """One program: how it is called, its flags, and flags that people give it although it has none such."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    program: list[str]
    parser: Literal["argparse", "click"]
    positional: str | None = None
    sources: list[str]
    one_of: list[list[str]] = []
    flags: dict[str, Flag]
    removed: dict[str, tuple[str, str]]
    rules: list[Rule]

    @property
    def name(self) -> str:
        """The program as people call it."""
        return os.path.basename(next(word for word in self.program if word != "python3"))

    def find(self, given: str) -> str | None:
        """The flag's first name for any of its names or its Python keyword; None if there is no such flag."""
        for name, flag in self.flags.items():
            if given in (name, *flag.aliases) or given in map(_keyword, (name, *flag.aliases)):
                return name
        return None

    def unknown(self, given: str) -> str:
        """The sentence about a flag that does not exist: what to use in its place, or the nearest names."""
        flag = given if given.startswith("-") else f"--{given}"
        use, why = self.removed.get(flag, ("", ""))
        if why:
            return f"no flag {flag}. " + (f"Use {use} ({why})." if use else f"{why[0].upper()}{why[1:]}.")
        names = [name for first, one in self.flags.items() for name in (first, *one.aliases)]
        near = difflib.get_close_matches(flag, names, n=3, cutoff=0.7)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See `engineroom trtllm flags`."
        return f"no flag {flag} in TensorRT-LLM {version()}. {hint}"


def check(name: str, args: Mapping[str, object]) -> dict[str, Value]:
    """``args`` of the tool ``name`` (see ``tools``) by full flag name, typed; no None, no False switch.

    Keys are flags ("--max_seq_len") or Python keywords (max_seq_len). Raises FlagError with every problem:
    unknown or removed flags, a wrong type, a value outside the choices, missing flags, pairs that exclude
    each other.
    """
    tool = tools()[name]
    good: dict[str, Value] = {}
    problems = []
    for given, value in args.items():
        first = tool.find(given)
        if first is None:
            problems.append(tool.unknown(given))
        elif first in good:
            problems.append(f"{first} is given twice.")
        elif value is not None:
            try:
                good[first] = typed(first, tool.flags[first], value)
            except ValueError as error:
                problems.append(str(error))
    set_ = {one: value for one, value in good.items() if value is not False or tool.flags[one].off}
    seen = {tool.find(given) for given, value in args.items() if value is not None}
    needed = [[one] for one, flag in tool.flags.items() if flag.required] + tool.one_of
    problems += [f"{' or '.join(names)} is required." for names in needed if not seen & set(names)]
    problems += [problem for rule in tool.rules for problem in rule.problems(set_)]
    if problems:
        raise FlagError(tool.name, problems)
    return set_


def _has(args: Mapping[str, object], name: str, values: list[str]) -> bool:
    return name in args and (not values or str(args[name]) in values)


def _keyword(name: str) -> str:
    return name.lstrip("-").replace("-", "_")


@cache
def _reference() -> dict:
    return json.loads(Path(__file__).with_name("flags.json").read_text())


@cache
def tools() -> dict[str, Tool]:
    """Every tool by the name that the builders use: "build", "convert llama", "bench throughput" ..."""
    return {name: Tool.model_validate(one) for name, one in _reference()["tools"].items()}


def version() -> str:
    """The version of TensorRT-LLM that the flags are of."""
    return _reference()["version"]


def image() -> str:
    """The newest container seen to have this version (Triton's documentation, compatibility table)."""
    return _reference()["image"]
