"""The command `engineroom` with its commands, each imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer
from typer.core import CompletionItem, TyperGroup  # pyright: ignore[reportPrivateImportUsage] (exported nowhere)
from typer.main import get_command

from engineroom.kit.command import CommandTarget

if TYPE_CHECKING:  # Click's classes, which typer carries inside
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter


class LazyGroup(TyperGroup):
    """Imports a command's module when that command is called: `engineroom --help` does not wait for PyTorch.

    After "Lazily Loading Subcommands" of Click's documentation.
    """

    targets: Mapping[str, CommandTarget]  # set by command_group

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


def command_group(targets: Mapping[str, CommandTarget], help: str | None = None) -> typer.Typer:
    """Create the command `engineroom`, described by ``help``, with these commands below it."""
    group = type("Group", (LazyGroup,), {"targets": targets})
    app = typer.Typer(
        cls=group,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=help,
    )

    @app.callback()
    def engineroom() -> None:
        pass

    return app
