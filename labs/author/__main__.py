"""``python -m labs.author build|…``"""

from __future__ import annotations

from typing import Annotated

import typer

from labs.author import build as building
from labs.author.regions import SourceError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
Names = Annotated[list[str] | None, typer.Argument(metavar="[NN ...]", help="lessons; none means all")]


@app.callback()
def main() -> None:
    """One source per lesson."""


@app.command()
def build(lessons: Names = None, execute: bool = False, check: bool = False) -> None:
    """Make the notebooks from solutions/NN_name.py."""
    try:
        report = building.build(lessons or [], execute=execute, check=check)
    except (SourceError, FileNotFoundError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    typer.echo(report)
    raise typer.Exit(0 if report.ok else 1)


if __name__ == "__main__":
    app(prog_name="python -m labs.author")
