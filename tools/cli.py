"""The course from a terminal: the commands of `engineroom` that exist where the course is checked out."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from engineroom.kit.command import application
from engineroom.kit.command import run as run_command
from tools.author.files import ROOT

app = application(__doc__, no_args_is_help=True)
Names = Annotated[list[str] | None, typer.Argument(metavar="[NN ...]", help="lessons; none means all")]
WORK = ROOT / "work"


@app.command()
def lab(
    work: Annotated[Path, typer.Option(help="your copies of the lessons")] = WORK,
    port: int = 8888,
    host: Annotated[
        str, typer.Option(help="address to listen on; only this machine unless you say so")
    ] = "127.0.0.1",
    browser: bool = True,
) -> None:
    """Bring your work folder up to date and open JupyterLab on the first lesson."""
    from engineroom.kit.machine import machine
    from labs.preflight import problems
    from tools.author.work import sync

    print(f"Lessons in {os.path.relpath(work)}:\n  " + str(sync(work)).replace("\n", "\n  "))
    for problem in problems(machine()):
        print("!", problem)
    print(hint(port), flush=True)
    no_news()
    first = next(iter(sorted(work.glob("00_*.ipynb"))), work)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        str(first),
        f"--ServerApp.root_dir={work}",
        f"--port={port}",
    ]
    command += [f"--ServerApp.ip={host}", "--ServerApp.allow_root=True"]
    command += [] if browser and has_display() else ["--no-browser"]
    os.execv(sys.executable, command)


def hint(port: int) -> str:
    """What to do when the browser is not on this machine."""
    if "SSH_CONNECTION" not in os.environ:
        return "JupyterLab prints its address below; open it in a browser."
    return (
        f"You are connected over SSH. On your own machine run `ssh -L {port}:127.0.0.1:{port} <this machine>`, then "
        f"open the address with 127.0.0.1 that JupyterLab prints below."
    )


def no_news() -> None:
    """Keep JupyterLab from asking whether it may fetch news: the course needs no network after set-up."""
    settings = Path(sys.prefix, "share", "jupyter", "lab", "settings", "overrides.json")
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    if not settings.exists() and os.access(sys.prefix, os.W_OK):
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps(quiet))


def has_display() -> bool:
    """True when a browser could open a window here."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@app.command()
def run(
    lessons: Names = None,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, e.g. model=course")] = None,
) -> None:
    """Execute every lesson and write out/report.html: per lesson and cell what ran, where, how long."""
    from tools.author.run import parse_parameters
    from tools.author.run import run as run_all

    end(report := run_all(lessons or [], parameters=parse_parameters(parameter or [])), report.ok)


@app.command()
def build(lessons: Names = None, execute: bool = False, check: bool = False) -> None:
    """Make the notebooks from solutions/NN_name.py."""
    from tools.author.build import build as make

    end(report := make(lessons or [], execute=execute, check=check), report.ok)


@app.command()
def gates(lessons: Names = None) -> None:
    """Tell what is wrong with the committed notebooks."""
    from tools.author.gates import problems

    found = problems(lessons or [])
    end("\n".join(map(str, found)) or "no problem found", not found)


@app.command()
def sync(work: Path = WORK) -> None:
    """Bring a work folder up to date; what you changed is kept."""
    from tools.author.work import sync as bring

    end(bring(work), True)


@app.command()
def machine() -> None:
    """The machine card, and what will hurt."""
    from engineroom.kit.machine import machine as look
    from labs.preflight import problems

    here = look()
    print(here, *(f"! {problem}" for problem in problems(here)), sep="\n")


@app.command()
def progress(
    report: Annotated[Path | None, typer.Option(help="write it to hand in: .html or .json")] = None,
) -> None:
    """What you have done so far."""
    from engineroom.kit.files import write_atomic
    from labs.kit.progress import report as make

    for lesson in json.loads(make("json"))["lessons"]:
        print(f"{lesson['lesson']:24} {lesson['done']} of {lesson['total']}")
    if report:
        write_atomic(report, make("json" if report.suffix == ".json" else "html"))
        print(f"written: {report}")


@app.command()
def stop() -> None:
    """Stop the servers whose notebook is gone."""
    from engineroom.kit.process import reap

    print("\n".join(reap()) or "nothing was left running")


def end(report: object, ok: bool) -> None:
    """Print a report; the exit status says whether all is well."""
    typer.echo(report)
    raise typer.Exit(0 if ok else 1)


@app.command()
def bill(gpu: Annotated[str, typer.Option(help="as in records/published/gpu-prices.json")] = "H100") -> None:
    """Minutes of each lesson, and dollars on a rented GPU."""
    from labs.kit import show
    from labs.kit.bill import bill as rows

    show.table(rows(gpu), f"Minutes to work through each lesson, and dollars on a rented {gpu}")


records = application("The records of measurements.", no_args_is_help=True)
app.add_typer(records, name="records")


@records.callback()
def group() -> None:
    """The records of measurements."""


@records.command()
def schema() -> None:
    """Write records/schema.json again from the model of a record."""
    from engineroom.kit.files import write_atomic
    from engineroom.kit.record import schema as text

    write_atomic(ROOT / "records" / "schema.json", text())


if __name__ == "__main__":
    run_command(app)
