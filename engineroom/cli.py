"""Engine Room: convert, build, serve, deploy and measure language models."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import typer
from typer.core import CompletionItem, TyperGroup  # pyright: ignore[reportPrivateImportUsage] (exported nowhere)
from typer.main import get_command

from engineroom.kit.command import run

if TYPE_CHECKING:  # Click's classes, which typer carries inside
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter


class CommandTarget(NamedTuple):
    """A command's typer application: its module, a line of help, and the name of one command in it, "" for all."""

    module: str
    help: str
    command: str = ""


ENGINE = "engineroom.engine.__main__"
LIBRARY = {
    "checkpoint": CommandTarget(
        "engineroom.checkpoint.__main__", "Convert, inspect and compare checkpoints."
    ),
    "build": CommandTarget(ENGINE, "Compile a checkpoint into an engine.", "build"),
    "refit": CommandTarget(ENGINE, "Give an engine the weights of another checkpoint.", "refit"),
    "inspect": CommandTarget(ENGINE, "Show what an engine was built for.", "inspect"),
    "generate": CommandTarget(ENGINE, "Answer one question with an engine.", "generate"),
    "serve": CommandTarget("engineroom.openai.__main__", "Serve an engine over OpenAI's HTTP API."),
    "triton": CommandTarget(
        "engineroom.triton.__main__", "Render, check and serve a Triton model repository."
    ),
    "trtllm": CommandTarget("engineroom.trtllm.__main__", "Check a command line of TensorRT-LLM's tools."),
    "vllm": CommandTarget("engineroom.vllm.__main__", "Measure vLLM on this machine."),
    "compare": CommandTarget("engineroom.compare.__main__", "Measure engines and servers side by side."),
    "quality": CommandTarget("engineroom.quality.__main__", "Score the answers of a model or a server."),
    "metrics": CommandTarget("engineroom.metrics.__main__", "Write the Grafana dashboard."),
}


class LazyGroup(TyperGroup):
    """Imports a command's module when that command is called: `engineroom --help` does not wait for PyTorch.

    After "Lazily Loading Subcommands" of Click's documentation.
    """

    targets: Mapping[str, CommandTarget] = LIBRARY

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.targets)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        target = self.targets.get(cmd_name)
        return load_command(target) if target else None

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, target.help) for name, target in self.targets.items()])

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.targets if name.startswith(incomplete)]
        return [CompletionItem(name, help=self.targets[name].help) for name in names]


def load_command(target: CommandTarget) -> Command:
    """Import the target's module and return its command. Raises ValueError when the application lacks it."""
    command = get_command(importlib.import_module(target.module).app)
    if not target.command:
        return command
    subcommand = command.commands.get(target.command) if isinstance(command, TyperGroup) else None
    if subcommand is None:
        raise ValueError(f"{target.module} has no command {target.command!r}.")
    return subcommand


def command_group(targets: Mapping[str, CommandTarget]) -> typer.Typer:
    """Create the command `engineroom` with these commands below it."""
    group = type("Group", (LazyGroup,), {"targets": targets})
    app = typer.Typer(
        cls=group, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
    )

    @app.callback()
    def engineroom() -> None:
        pass

    return app


def main(targets: Mapping[str, CommandTarget] = LIBRARY) -> None:
    """Run the command line of this process."""
    run(command_group(targets))


if __name__ == "__main__":
    main()
