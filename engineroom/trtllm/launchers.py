"""Which program a command starts in the end: behind mpirun, docker run, env, python -m, bash -c and the like."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from engineroom.trtllm.values import ShellWord

SHELLS = ("bash", "sh", "dash", "zsh", "ksh")
CONTAINERS = ("docker", "podman", "nerdctl")
PYTHON = re.compile(r"python[\d.]*|pypy3?")
DASHES = "‐‑‒–—―−"
QUOTES = "“”„‘’‚«»"
BLANKS = "\u00a0\u2002\u2003\u2007\u2009\u200b\u202f\u3000\ufeff"  # a shell does not split words there
ASSIGNMENT = re.compile(r"\w+\+?=", re.ASCII)
_TABLES = json.loads(Path(__file__).with_name("launchers.json").read_text())
PLAIN: dict[str, tuple[str, int]] = _TABLES["plain"]
OPEN: list[str] = _TABLES["open"]
NAMING: list[str] = _TABLES["naming"]
SWITCHES: list[str] = _TABLES["container_switches"]


@dataclass(frozen=True)
class Program:
    """The program that a command starts, its words, and the words before it. ``module`` is python's -m."""

    name: str
    words: list[str]
    launcher: list[str]
    script: str | None = None
    module: str | None = None


def plain(word: str) -> str:
    """The base name of a program, with the marks of a word processor and of a notebook taken away."""
    start = re.split(f"[{BLANKS}]", word.strip(BLANKS + QUOTES))[0]
    return os.path.basename(start.lstrip("!")).translate(dict.fromkeys(map(ord, DASHES), "-"))


def resolve(words: list[str], known: set[str]) -> Program | None:
    """The program behind the launchers of a command; ``known`` are the tools. None if no program follows."""
    start = 0
    while start < len(words):
        name = plain(words[start])
        if name in SHELLS:
            return _shell(words, start)
        if name == "eval":
            return Program(name, [], words[:start], script=" ".join(words[start + 1 :]))
        if PYTHON.fullmatch(name):
            return _python(words, start)
        if name in CONTAINERS:
            words, start = _container(words, start)
        elif name in PLAIN:
            options, operands = PLAIN[name]
            start = _after_options(words, start + 1, options, operands)
        elif name in OPEN:
            start = _first_known(words, start + 1, known)
            if start < len(words) and " " in words[start]:
                return Program(name, [], words[:start], script=words[start])
        elif ASSIGNMENT.match(words[start]):
            start += 1
        else:
            return Program(name, words[start:], words[:start])
    return None


def _after_options(words: list[str], start: int, valued: str, operands: int) -> int:
    """Where the program of a launcher stands: behind its options and ``operands`` words, and assignments."""
    while start < len(words):
        word = words[start]
        if word.startswith("-") and word != "-":
            start += 2 if word in valued.split() else 1
        elif ASSIGNMENT.match(word):
            start += 1
        elif operands:
            operands -= 1
            start += 1
        else:
            break
    return start


def _first_known(words: list[str], start: int, known: set[str]) -> int:
    """The place of the first word that is a program, or a text for a shell that has one."""
    for index in range(start, len(words)):
        first, blank, _ = words[index].strip().partition(" ")
        name = plain(first)
        is_program = name in known or name in (*SHELLS, *CONTAINERS, *PLAIN, *OPEN) or PYTHON.fullmatch(name)
        if blank and (is_program or any(tool in words[index] for tool in known)):
            return index
        if is_program and words[index - 1] not in NAMING:
            return index
    return len(words)


def _container(words: list[str], start: int) -> tuple[list[str], int]:
    """The words of `docker run` with the program's place. --entrypoint names the program before them."""
    verb = next((i for i in range(start + 1, len(words)) if words[i] in ("run", "exec", "create")), None)
    if verb is None:
        return words, len(words)
    entrypoint: list[str] = []
    words = [*words]
    index = verb + 1
    while index < len(words) and words[index].startswith("-"):
        option, equals, value = words[index].partition("=")
        takes_next = not equals and option not in SWITCHES
        if not option.startswith("--"):  # -it takes no word, -p takes one, -p80:80 has its own
            takes_next = len(option[1:].lstrip("dPqitT")) == 1
        if option == "--entrypoint":
            entrypoint = [value] if equals else words[index + 1 : index + 2]
            del words[index : index + 1 + takes_next]
        else:
            index += 1 + takes_next
    program = index + 1  # behind the image
    return [*words[:program], *entrypoint, *words[program:]], program


def _shell(words: list[str], start: int) -> Program:
    """`bash -c TEXT`; a shell without a file reads its input, and one with a file runs that."""
    name = plain(words[start])
    index = start + 1
    has_text = False
    while index < len(words) and words[index].startswith(("-", "+")):
        option = words[index]
        has_text |= not option.startswith("--") and "c" in option
        index += 2 if option in ("-o", "+o", "-O", "+O", "--rcfile", "--init-file") else 1
    if has_text:
        return Program(name, [], words[:start], script="".join(words[index : index + 1]))
    return Program(name, words[index:], words[:start])


def _python(words: list[str], start: int) -> Program:
    """The script of python with its words, or its module."""
    name = plain(words[start])
    index = start + 1
    while index < len(words) and words[index].startswith("-"):
        option = words[index]
        if re.fullmatch(r"-[A-Za-z]*m", option):
            module = "".join(words[index + 1 : index + 2])
            return Program(name, words[index + 2 :], words[:start], module=module)
        if re.fullmatch(r"-m.+", option):
            return Program(name, words[index + 1 :], words[:start], module=option[2:])
        if re.fullmatch(r"-[A-Za-z]*c", option) or option == "-":
            return Program(name, [], words[:start])
        index += 2 if option in ("-W", "-X", "--check-hash-based-pycs") else 1
    if index == len(words):
        return Program(name, [], words[:start])
    return Program(plain(words[index]), words[index:], words[:start])


def as_typed(words: list[str]) -> list[ShellWord]:
    """Words that a shell has split: those without a blank or a quote were probably typed without quotes."""
    return [
        ShellWord(word, word if re.fullmatch(r"[^\s\"'\\$`;&|<>()*?]+", word) else shlex.quote(word))
        for word in words
    ]
