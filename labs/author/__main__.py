"""``python -m labs.author build|gates|run|sync``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from labs.author import build as building
from labs.author import gates as gating
from labs.author import work as syncing
from labs.author.regions import SourceError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
Names = Annotated[list[str] | None, typer.Argument(metavar="[NN ...]", help="lessons; none means all")]


@app.command()
def build(lessons: Names = None, execute: bool = False, check: bool = False) -> None:
    """Make the notebooks from solutions/NN_name.py."""
    report = building.build(lessons or [], execute=execute, check=check)
    _end(report, report.ok)


@app.command()
def gates(lessons: Names = None) -> None:
    """Tell what is wrong with the committed notebooks."""
    problems = gating.problems(lessons or [])
    _end("\n".join(map(str, problems)) or "no problem found", not problems)


@app.command()
def run(lessons: Names = None, parameter: Annotated[list[str] | None, typer.Option("-p")] = None) -> None:
    """Execute the solutions; -p name=value; the report is out/report.html."""
    from labs.author.run import parse_parameters
    from labs.author.run import run as run_all

    report = run_all(lessons or [], parameters=parse_parameters(parameter or []))
    _end(report, report.ok)


@app.command()
def sync(work: Path) -> None:
    """Bring a learner's work folder up to date."""
    _end(syncing.sync(work), True)


def _end(report: object, ok: bool) -> None:
    typer.echo(report)
    raise typer.Exit(0 if ok else 1)


if __name__ == "__main__":
    try:
        app(prog_name="python -m labs.author")
    except (SourceError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{error}") from error
