"""The gate over every page: each command that is shown exists, and it accepts the flags shown.

Commands are `engineroom …`, `python -m …` with a module of this repository, and `make …`. Alternatives may be written
as `engineroom build | inspect`. Words in capitals, `…` and `<…>` stand for a reader's own words and are not checked.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command

from engineroom.kit.command_group import command_group, load_command
from tools.__main__ import COMMANDS
from tools.author.files import ROOT
from tools.author.gates.notebook_file import Violation
from tools.author.gates.pages import PageText, page_texts

if TYPE_CHECKING:
    from typer._click.core import Command

PROGRAM = re.compile(
    r"(?<![\w./:$-])(?<!from )(?<!import )(?:\.venv/bin/|\$\(BIN\)/)?engineroom (?P<words>[a-z-][^`\n]*)"
    r"|\bpython3? -m (?P<module>(?:engineroom|labs|models|tools|tests)\b[\w.]*)(?P<arguments>[^`\n]*)"
)
MAKE = re.compile(r"(?m)(?:`|^\s*(?:\$ )?(?:\w+=\S+ )*)make (?P<words>[^`\n]*)")
END = re.compile(r"[;&>#(<]|--$|\\$")  # a word at which the arguments of a command end
NAME = re.compile(r"[a-z][\w-]*")
OPTION = re.compile(r"--?[A-Za-z]")


class ShownCommand(NamedTuple):
    """A command on a page: the program (`engineroom`, `make` or a module's name) and the words after it."""

    page: PageText
    program: str
    words: list[str]


def page_problems(root: Path = ROOT) -> list[Violation]:
    """Return a violation for each wrong command on a page below ``root``."""
    violations = []
    for command in shown_commands(root):
        if message := problem_of(command):
            shown = " ".join([command.program, *command.words])
            violations.append(Violation(str(command.page), 0, "command", f"`{shown}`: {message}"))
    return violations


def shown_commands(root: Path = ROOT) -> Iterator[ShownCommand]:
    """Yield every command on the pages below ``root``."""
    for page in page_texts(root):
        text = page.text.replace("\\\n", " ")
        for match in PROGRAM.finditer(text):
            words = match["words"] or match["arguments"] or ""
            yield ShownCommand(page, (match["module"] or "engineroom").rstrip("."), _words(words))
        for match in MAKE.finditer(text):
            yield ShownCommand(page, "make", _words(match["words"]))


def problem_of(command: ShownCommand) -> str:
    """Say what is wrong with the command: a name or a flag that does not exist. "" when all of it exists."""
    if command.program == "make":
        target = next((word for word in command.words if NAME.fullmatch(word)), "")
        return "" if not target or target in _make_targets() else f"the Makefile has no target {target!r}."
    if command.program == "engineroom":
        return _follow(_engineroom(), command)
    if not _can_run(command.program):
        return f"there is no module {command.program!r} that can be run."
    for target in COMMANDS.values():
        if command.program == target.module.removesuffix(".__main__") and not target.command:
            return _follow(load_command(target), command)
    return ""


def _words(text: str) -> list[str]:
    """Split a command's arguments, up to a comment, a redirection or the next command."""
    words = []
    for word in text.replace("[", " ").replace("]", " ").split():
        if END.match(word):
            break
        words.append(word.rstrip(".,:;)"))
        if word[-1] in ";)":
            break
    return words


def _follow(command: Command, shown: ShownCommand) -> str:
    """Follow the words down the groups of commands; say which is the first that does not exist."""
    group: Command = command
    is_alternative = False
    for word in shown.words:
        if command.context_settings.get("ignore_unknown_options"):
            return ""  # the command takes the words of another program
        if word == "|":
            is_alternative = True
        elif is_alternative or (isinstance(command, TyperGroup) and not word.startswith("-")):
            if not NAME.fullmatch(word):
                return ""  # a placeholder such as COMMAND
            group = group if is_alternative else command
            subcommand = _subcommand(group, word)
            if subcommand is None:
                is_pipe = is_alternative and shown.page.is_shell
                return "" if is_pipe else f"there is no command {word!r}; there are {_names(group)}."
            command = subcommand
            is_alternative = False
        elif OPTION.match(word) and not _accepts(command, word.partition("=")[0]):
            return f"{command.name or 'engineroom'!r} has no option {word.partition('=')[0]}."
    return ""


def _subcommand(group: Command, name: str) -> Command | None:
    return group.get_command(typer.Context(group), name) if isinstance(group, TyperGroup) else None


def _names(group: Command) -> str:
    names = group.list_commands(typer.Context(group)) if isinstance(group, TyperGroup) else []
    return ", ".join(names) or "none below it"


def _accepts(command: Command, option: str) -> bool:
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return option in options | {"--help"}


@cache
def _engineroom() -> Command:
    return get_command(command_group(COMMANDS))


@cache
def _make_targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z][\w-]*):", (ROOT / "Makefile").read_text()))


@cache
def _can_run(module: str) -> bool:
    """Return True for a module, and for a package with a module ``__main__``."""
    try:
        spec = importlib.util.find_spec(module)
        is_package = spec is not None and spec.submodule_search_locations is not None
        return spec is not None and (
            not is_package or importlib.util.find_spec(f"{module}.__main__") is not None
        )
    except ModuleNotFoundError:  # of a package above it
        return False
