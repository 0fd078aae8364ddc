"""`engineroom trtllm`: write or check a command line of the real tools; nothing is run.

engineroom trtllm convert [llama|qwen] --model_dir MODEL --output_dir CHECKPOINT
engineroom trtllm quantize | build | run | serve | bench | launch  FLAGS as the real tool has them
engineroom trtllm check -- trtllm-build --checkpoint_dir CHECKPOINT --max_output_len 5
engineroom trtllm flags [build]

The exit status is 0 when the line is right, 1 when it is not, 2 when this usage was not understood.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from engineroom.kit.command import application, run
from engineroom.trtllm.commands import here
from engineroom.trtllm.flags import FlagError, tools, version
from engineroom.trtllm.pasted import parse

app = application(None)
TOOLS = {name.split()[0] for name in tools()}


def main(words: list[str]) -> int:
    """Print the checked line, or what is wrong with it on stderr; return the exit status."""
    first, rest = (words[0], words[1:]) if words else ("", [])
    if first == "flags":
        return flags(" ".join(rest))
    if first == "check":
        rest = rest[1:] if rest[:1] == ["--"] else rest
        line = rest[0] if len(rest) == 1 else rest
    elif first in TOOLS:
        name = first
        if first == "convert":
            name += f" {rest.pop(0) if rest and rest[0] in ('llama', 'qwen') else 'llama'}"
        line = [*tools()[name].program, *rest]
    else:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(parse(line))
    except FlagError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Checked against a transcription of TensorRT-LLM {version()}, not run.", file=sys.stderr)
    print(f"TensorRT-LLM on this machine: {here() or 'none'}.", file=sys.stderr)
    return 0


def flags(name: str) -> int:
    """Print the flags of the tools whose name starts with ``name``."""
    chosen = [one for one in tools() if one.startswith(name)]
    for one in chosen:
        print(f"{one}: {' '.join(tools()[one].program)}")
        for flag_name, flag in tools()[one].flags.items():
            kind = "|".join(map(str, flag.choices)) or flag.type
            print(f"  {flag_name} {kind if kind != 'switch' else ''}".rstrip() + f"\n      {flag.help}")
    if not chosen:
        print(f"no tool {name!r}; there are {', '.join(tools())}", file=sys.stderr)
    return 0 if chosen else 1


@app.command(context_settings={"ignore_unknown_options": True})
def trtllm(words: Annotated[list[str] | None, typer.Argument(metavar="TOOL [FLAGS]")] = None) -> None:
    """Write or check a command line of the real tools; nothing is run.

    TOOL is convert, quantize, build, run, serve, bench, launch, check or flags.
    """
    raise typer.Exit(main(words or []))


if __name__ == "__main__":
    run(app)
