"""`engineroom trtllm`: write or check a command line of TensorRT-LLM's tools; nothing is run.

engineroom trtllm convert [llama|qwen] --model_dir MODEL --output_dir CHECKPOINT
engineroom trtllm quantize | build | run | serve | bench | launch  FLAGS as the real tool has them
engineroom trtllm check -- trtllm-build --checkpoint_dir CHECKPOINT --max_output_len 5
engineroom trtllm check -- 'any text for a shell, with quotes around all of it'
engineroom trtllm flags [build]

The exit status is 0 when the line is right, 1 when it is wrong, 2 when this usage was not followed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from engineroom.kit.command import application, run
from engineroom.trtllm.commands import installed_version
from engineroom.trtllm.flags import FlagError, tools, version
from engineroom.trtllm.launchers import as_typed
from engineroom.trtllm.parser import parse_script

app = application(None)
PROGRAMS = {name.split()[0] for name in tools()}


def main(words: list[str]) -> int:
    """Print the checked line, or what is wrong with it on stderr; return the exit status."""
    subcommand, *arguments = words or [""]
    if subcommand == "flags":
        return print_flags(" ".join(arguments))
    if subcommand == "check":
        arguments = arguments[1:] if arguments[:1] == ["--"] else arguments
        return print_checked(arguments[0] if len(arguments) == 1 else as_typed(arguments))
    if subcommand not in PROGRAMS:
        print(__doc__, file=sys.stderr)
        return 2
    name = subcommand
    if subcommand == "convert":
        family = arguments.pop(0) if arguments and arguments[0] in ("llama", "qwen") else "llama"
        name = f"convert {family}"
    return print_checked([*tools()[name].program, *arguments])


def print_checked(line: str | Sequence[str]) -> int:
    """Print each command as the real tool takes it, or what is wrong with them; return the exit status."""
    try:
        print(*parse_script(line), sep="\n")
    except FlagError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Checked against a transcription of TensorRT-LLM {version()}, not run.", file=sys.stderr)
    print(f"TensorRT-LLM on this machine: {installed_version() or 'none'}.", file=sys.stderr)
    return 0


def print_flags(prefix: str) -> int:
    """Print the flags of the tools whose name starts with ``prefix``; return the exit status."""
    matching = {name: tool for name, tool in tools().items() if name.startswith(prefix)}
    for name, tool in matching.items():
        print(f"{name}: {' '.join(tool.program)}")
        for flag_name, flag in tool.flags.items():
            kind = "" if flag.type == "switch" else "|".join(map(str, flag.choices)) or flag.type
            print(f"  {flag_name} {kind}".rstrip() + f"\n      {flag.help}")
    if not matching:
        print(f"There is no tool {prefix!r}. Known tools: {', '.join(tools())}.", file=sys.stderr)
    return 0 if matching else 1


@app.command(context_settings={"ignore_unknown_options": True})
def trtllm(words: Annotated[list[str] | None, typer.Argument(metavar="TOOL [FLAGS]")] = None) -> None:
    """Write or check a command line of TensorRT-LLM's tools; nothing is run.

    TOOL is convert, quantize, build, run, serve, bench, launch, check or flags.
    """
    raise typer.Exit(main(words or []))


if __name__ == "__main__":
    run(app)
