"""Read what somebody wrote for TensorRT-LLM's tools: a command, or a shell's text with several.

Kept because the tools' own parsers need TensorRT-LLM installed. shell.py splits a text into commands, launchers.py
finds the program of each, arguments.py its flags, and flags.py checks the values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engineroom.trtllm import old_tools
from engineroom.trtllm.arguments import split
from engineroom.trtllm.commands import BENCH_MODES, Command, command
from engineroom.trtllm.flags import FlagError, tools, version
from engineroom.trtllm.launchers import SHELLS, Program, resolve
from engineroom.trtllm.shell import SimpleCommand, simple_commands
from engineroom.trtllm.typography import typographic_problems
from engineroom.trtllm.values import ShellWord, expands

OTHER_SERVERS = (
    "disaggregated",
    "disaggregated_mpi_worker",
    "mm_embedding_serve",
)  # subcommands of trtllm-serve
OTHER_BENCH_MODES = ("build", "prepare-dataset")  # subcommands of trtllm-bench
OTHER_TOOLS = ("trtllm-eval", "trtllm-prune", "trtllm-refit")
MODULES = "tensorrt_llm.commands."
DEEPEST = 8  # texts for a shell inside of texts for a shell


def parse(line: str | Sequence[str]) -> Command:
    """Check a line with one of the tools, whatever a shell has around it.

    Long flags may be abbreviated where the real tool allows it. Raises FlagError with every problem.
    """
    commands = parse_script(line)
    if len(commands) > 1:
        raise FlagError("line", [f"it has {len(commands)} commands of TensorRT-LLM. Give them one by one."])
    return commands[0]


def parse_script(text: str | Sequence[str]) -> list[Command]:
    """Check every command of TensorRT-LLM's tools in a shell's text, or in the words of one command.

    Other programs are not looked at. Raises FlagError with the problems of all commands, also when there is none.
    """
    commands: list[Command] = []
    errors: list[FlagError] = []
    words: list[str] = []
    for program in _programs(text, words, errors):
        try:
            commands += _parse_program(program)
        except FlagError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise FlagError.joined(errors)
    if not commands:
        raise FlagError("line", [_nothing_found(words)])
    return commands


def _programs(
    text: str | Sequence[str], words: list[str], errors: list[FlagError], depth: int = 0
) -> list[Program]:
    """The programs that ``text`` starts, those in texts for a further shell included.

    All words are added to ``words``, and what a shell cannot read to ``errors``.
    """
    if depth > DEEPEST:
        errors.append(
            FlagError("line", [f"more than {DEEPEST} shells are nested in it; check the inner ones."])
        )
        return []
    try:
        commands = simple_commands(text) if isinstance(text, str) else [SimpleCommand([*text])]
    except FlagError as error:
        errors.append(error)
        return []
    programs: list[Program] = []
    for simple in commands:
        words += simple.words
        if simple.words and simple.words[0].startswith("-"):
            errors.append(FlagError("line", [_torn(simple.words)]))
            continue
        program = resolve([*simple.words], _known())
        if program is None:
            continue
        script = program.script
        if program.name in SHELLS and script is None and not program.words:
            script = simple.stdin
        programs += [program] if script is None else _programs(script, words, errors, depth + 1)
    return programs


def _torn(words: Sequence[str]) -> str:
    return (
        f"{words[0]!r} starts a command of its own. Let the line before end in a backslash, with no blank or comment "
        "behind or below it."
    )


def _nothing_found(words: list[str]) -> str:
    known = f"it starts none of the tools known here: {_transcribed()}."
    named = sorted({name for name in _known() for word in words if name in word and "." not in name})
    if not named:
        return known
    return f"{known} It has {' and '.join(named)} only as an argument of another program."


def _transcribed() -> str:
    return ", ".join(sorted({tool.name for tool in tools().values()}))


def _known() -> set[str]:
    return {tool.name for tool in tools().values()} | {*OTHER_TOOLS} | old_tools.SCRIPTS


def _parse_program(program: Program) -> list[Command]:
    """The checked command of a program; an empty list if it is none of TensorRT-LLM's."""
    if program.module is not None:
        if not program.module.startswith(MODULES):
            return []
        name = "trtllm-" + program.module.removeprefix(MODULES).replace("_", "-")
        words = [name, *program.words]
    else:
        name = program.name
        words = program.words
    if problem := old_tools.problem(name, words):
        raise FlagError(name, [problem])
    if name in OTHER_TOOLS or (program.module is not None and name not in _known()):
        raise FlagError(name, [f"it is not transcribed here, only {_transcribed()}."])
    if name not in {tool.name for tool in tools().values()}:
        return []
    if problems := typographic_problems(words):
        raise FlagError(name, problems)
    if "--help" in words:
        raise FlagError(
            name, ["with --help it prints its flags and does nothing else. See `engineroom trtllm flags`."]
        )
    path = words[0] if words and program.module is None else name
    return [_parse_tool(name, path, [_settled(word) for word in words[1:]], program.launcher)]


def _settled(word: str) -> str:
    """The word as the tool gets it; one that the shell still has to fill in stays what it is."""
    return word if expands(word) or not isinstance(word, ShellWord) else "".join(word)


def _parse_tool(basename: str, path: str, words: list[str], launcher: list[str]) -> Command:
    """The checked command of the tool ``basename``, which was called by ``path``."""
    if basename == "trtllm-bench":
        return _parse_bench(words, launcher)
    if basename == "convert_checkpoint.py":
        folder = os.path.basename(os.path.dirname(path))
        family = "llama" if not folder or "$" in folder else folder
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
    modes = (*BENCH_MODES, *OTHER_BENCH_MODES)
    index = next((i for i, word in enumerate(words) if word in modes and i not in values), None)
    known = ", ".join(BENCH_MODES)
    if index is None:
        raise FlagError("trtllm-bench", [f"needs one of the subcommands known here: {known}."])
    if words[index] in OTHER_BENCH_MODES:
        problem = (
            f"TensorRT-LLM {version()} has the subcommand {words[index]}, but its flags are not transcribed here, "
            f"only those of {known}."
        )
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
    """The checked command. Stray words are problems, but for those with a variable, which may hold flags."""
    variables = [word for word in stray_words if expands(word)]
    stray = [f"{word!r} belongs to no flag." for word in stray_words if not expands(word)]
    try:
        checked = command(
            name, args, model=model, group_flags=group_flags, launcher=launcher, complete=not variables
        )
    except FlagError as error:
        raise FlagError(tools()[name].name, error.problems + stray) from None
    if stray:
        raise FlagError(tools()[name].name, stray)
    return replace(checked, argv=(*checked.argv, *variables))
