"""The course from a terminal: the commands of `engineroom` that exist only in a checkout of the course."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from engineroom.kit.command import application
from engineroom.kit.command import run as run_command
from tools.author.files import ROOT

app = application(__doc__, no_args_is_help=True)
Lessons = Annotated[
    list[str] | None, typer.Argument(metavar="[NN ...]", help="numbers of lessons; default: all")
]
WORK = ROOT / "work"


@app.command()
def lab(
    work: Annotated[Path, typer.Option(help="folder with your copies of the lessons")] = WORK,
    port: int = 8888,
    host: Annotated[
        str, typer.Option(help="address to listen on; the default is this machine only")
    ] = "127.0.0.1",
    browser: bool = True,
) -> None:
    """Bring your work folder up to date and open JupyterLab on the first lesson."""
    from engineroom.kit.machine import machine
    from labs.preflight import problems
    from tools.author.work import sync
    from tools.lab.start import start_lab

    print(f"Lessons in {os.path.relpath(work)}:\n  " + str(sync(work)).replace("\n", "\n  "))
    for problem in problems(machine()):
        print("!", problem)
    print(browser_hint(port), flush=True)
    start_lab(work, port=port, host=host, browser=browser and has_display())


def browser_hint(port: int) -> str:
    """Say how to open JupyterLab when the browser is not on this machine."""
    if "SSH_CONNECTION" not in os.environ:
        return "JupyterLab prints its address below; open it in a browser."
    return (
        f"You are connected over SSH. On your own machine run `ssh -L {port}:127.0.0.1:{port} <this machine>`, then "
        f"open the address with 127.0.0.1 that JupyterLab prints below."
    )


def has_display() -> bool:
    """Return True when a browser could open a window here."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@app.command()
def run(
    lessons: Lessons = None,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, e.g. model=course")] = None,
    repeat: Annotated[
        bool, typer.Option("--repeat", help="run each cell twice in a row, then all cells again")
    ] = False,
) -> None:
    """Execute lessons and write out/report.html: what ran in each cell, where, and how long it took."""
    from tools.author.run import parse_parameters
    from tools.author.run import run as run_lessons

    report = run_lessons(lessons or [], parameters=parse_parameters(parameter or []), repeat=repeat)
    finish(report, report.ok)


@app.command("lessons")
def build_lessons(
    lessons: Lessons = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="also run them and write solutions/*.ipynb")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="write nothing; fail when a notebook is out of step")
    ] = False,
) -> None:
    """Build the notebooks from solutions/NN_name.py."""
    from tools.author.build import build

    report = build(lessons or [], execute=execute, check=check)
    finish(report, report.ok)


@app.command()
def gates(lessons: Lessons = None) -> None:
    """Say what is wrong with the committed notebooks and, if no lesson is named, with the commands on all pages."""
    from tools.author.gates import problems
    from tools.author.gates.commands import page_problems

    violations = problems(lessons or [])
    if not lessons:
        violations += page_problems()
    finish("\n".join(map(str, violations)) or "no problem found", not violations)


@app.command()
def sync(work: Path = WORK) -> None:
    """Bring a work folder up to date; what you changed stays as it is."""
    from tools.author.work import sync as sync_work

    finish(sync_work(work), True)


@app.command()
def machine() -> None:
    """Show the machine card and what will cause trouble."""
    from engineroom.kit.machine import machine as probe_machine
    from labs.preflight import problems

    card = probe_machine()
    print(card, *(f"! {problem}" for problem in problems(card)), sep="\n")


@app.command()
def stop() -> None:
    """Stop the servers whose notebook has ended, and remove what killed programs left."""
    from engineroom.kit.process import reap_all

    print("\n".join(reap_all()) or "no server was left running")


@app.command()
def bill(gpu: Annotated[str, typer.Option(help="as in records/published/gpu-prices.json")] = "H100") -> None:
    """Show minutes of each lesson, and dollars on a rented GPU."""
    from labs.kit import show
    from labs.kit.bill import bill as lesson_bill

    show.table(lesson_bill(gpu), f"Minutes to work through each lesson, and dollars on a rented {gpu}")


records = application("The records of measurements.", no_args_is_help=True)
app.add_typer(records, name="records")


@records.callback()
def records_group() -> None:
    """The records of measurements."""


@records.command()
def schema() -> None:
    """Write records/schema.json again from the model of a record."""
    from engineroom.kit.files import write_atomic
    from engineroom.kit.record import records_folder
    from engineroom.kit.record import schema as record_schema

    write_atomic(records_folder() / "schema.json", record_schema())


def finish(report: object, ok: bool) -> None:
    """Print a report and exit with status 0 when ``ok``, else 1."""
    typer.echo(report)
    raise typer.Exit(0 if ok else 1)


if __name__ == "__main__":
    run_command(app)
