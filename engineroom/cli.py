"""Engine Room: convert, build, serve, deploy and measure language models."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
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


class LazyGroup(typer.core.TyperGroup):
    """Imports a command's module when that command is called: `engineroom --help` does not wait for PyTorch.

    After "Lazily Loading Subcommands" of Click's documentation.
    """

    targets: Mapping[str, Target] = LIBRARY

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.targets)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if not (target := self.targets.get(cmd_name)):
            return None
        command = typer.main.get_command(importlib.import_module(target.module).app)
        return command.get_command(ctx, target.command) if target.command else command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in self.targets.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.targets if name.startswith(incomplete)]
        return [CompletionItem(name, help=self.targets[name].help) for name in names]


def application(targets: Mapping[str, Target]) -> typer.Typer:
    """The command `engineroom` with these commands below it."""
    group = type("Group", (LazyGroup,), {"targets": targets})
    app = typer.Typer(
        cls=group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
    )

    @app.callback()
    def engineroom() -> None:
        pass

    return app


def main(targets: Mapping[str, Target] = LIBRARY) -> None:
    """Run the command line of this process."""
    run(application(targets))


if __name__ == "__main__":
    main()
