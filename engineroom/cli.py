"""Engine Room: convert, build, serve, deploy and measure language models."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

import click
import typer
from click.shell_completion import CompletionItem

from engineroom.kit.command import run


class Target(NamedTuple):
    """Where a command is: a typer application, and the name of one command in it unless it is the whole."""

    module: str
    help: str
    command: str = ""


ENGINE = "engineroom.engine.__main__"
LIBRARY = {
    "checkpoint": Target("engineroom.checkpoint.__main__", "Convert, inspect and compare checkpoints."),
    "build": Target(ENGINE, "Compile a checkpoint into an engine.", "build"),
    "refit": Target(ENGINE, "Give an engine the weights of another checkpoint.", "refit"),
    "inspect": Target(ENGINE, "Show what an engine was built for.", "inspect"),
    "generate": Target(ENGINE, "Answer one question with an engine.", "generate"),
    "serve": Target("engineroom.openai.__main__", "Serve an engine over OpenAI's HTTP API."),
    "triton": Target("engineroom.triton.__main__", "Render, check and serve a Triton model repository."),
    "trtllm": Target("engineroom.trtllm.__main__", "Check a command line of TensorRT-LLM's tools."),
    "vllm": Target("engineroom.vllm.__main__", "Measure vLLM on this machine."),
    "compare": Target("engineroom.compare.__main__", "Measure engines and servers side by side."),
    "quality": Target("engineroom.quality.__main__", "Score the answers of a model or a server."),
    "metrics": Target("engineroom.metrics.__main__", "Write the Grafana dashboard."),
}


def targets() -> Mapping[str, Target]:
    """The library's commands, and those of the course where the course is checked out (an entry point of it)."""
    found = dict(LIBRARY)
    for point in entry_points(group="engineroom.commands"):
        try:
            found |= {name: Target(*target) for name, target in point.load().items()}
        except ModuleNotFoundError as error:
            if error.name not in (point.module, point.module.partition(".")[0]):
                raise
    return found


class LazyGroup(typer.core.TyperGroup):
    """Imports a command's module when that command is called: `engineroom --help` does not wait for PyTorch.

    After "Lazily Loading Subcommands" of Click's documentation.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(targets())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not (target := targets().get(cmd_name)):
            return None
        command = typer.main.get_command(importlib.import_module(target.module).app)
        return command.get_command(ctx, target.command) if target.command else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in targets().items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in targets() if name.startswith(incomplete)]
        return [CompletionItem(name, help=targets()[name].help) for name in names]


app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
)


@app.callback()
def engineroom() -> None:
    pass


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
