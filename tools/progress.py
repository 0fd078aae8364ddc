"""`engineroom progress`: what a learner has done, the map of the course, and the reports that are handed in."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Literal

import typer

from engineroom.kit.command import application
from engineroom.kit.files import write_atomic
from labs.kit.hand_in import Report, ReportError, read_file
from labs.kit.hand_in import report as hand_in_report

app = application(__doc__, invoke_without_command=True)
COLUMNS: tuple[str, ...] = (
    "file",
    "name",
    "lesson",
    "exercise",
    "verdict",
    "attempts",
    "first_attempt",
    "passed",
    "valid",
    "problem",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a cell that begins so


@app.callback()
def progress(
    context: typer.Context,
    report: Annotated[Path | None, typer.Option(help="write a page to hand in: .html or .json")] = None,
    name: Annotated[str | None, typer.Option(help="your name, for the page")] = None,
) -> None:
    """Show what you have done so far; with --report, write a page to hand in."""
    from labs.kit.course_map import as_text, course_stops
    from labs.kit.progress import load

    if context.invoked_subcommand:
        return
    if name and not report:
        raise ReportError("--name goes onto a report: name its file too, as in --report me.html")
    if report:
        format = _format(report)
        write_atomic(report, hand_in_report(format, name=name))
        print(f"written: {report}")
    else:
        print(as_text(course_stops(load())))


@app.command("map")
def show_map() -> None:
    """Show every lesson, its exercises, and where to go on."""
    from labs.kit.course_map import show_map as show

    show()


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="reports, .html or .json")],
    table: Annotated[
        Path | None, typer.Option("--csv", help="write a row for each exercise of each report")
    ] = None,
) -> None:
    """Tell for each report whether it is as it was written; the exit status is 1 when one is not."""
    results = [(path, _result(path)) for path in files]
    for path, result in results:
        print(f"{path}: {_line(result)}")
    if table:
        write_atomic(table, csv_text(results))
        print(f"written: {table}")
    raise typer.Exit(1 if any(isinstance(result, ReportError) for _, result in results) else 0)


def csv_text(results: list[tuple[Path, Report | ReportError]]) -> str:
    """Return a row for each exercise of each valid report, and a single row for a file that is not valid."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for path, result in results:
        writer.writerows(_rows(path, result))
    return text.getvalue()


def _rows(path: Path, result: Report | ReportError) -> list[dict[str, str]]:
    file = _plain(str(path))
    if isinstance(result, ReportError):
        return [{"file": file, "valid": "no", "problem": str(result)}]
    return [
        {
            "file": file,
            "name": _plain(result.name or ""),
            "lesson": lesson.lesson,
            "exercise": exercise.id,
            "verdict": exercise.status,
            "attempts": str(exercise.attempts),
            "first_attempt": exercise.first_at.isoformat(timespec="seconds") if exercise.first_at else "",
            "passed": exercise.passed_at.isoformat(timespec="seconds") if exercise.passed_at else "",
            "valid": "yes",
        }
        for lesson in result.lessons
        for exercise in lesson.exercises
    ]


def _plain(text: str) -> str:
    """Keep a spreadsheet from reading a learner's text as a formula, after OWASP's advice on CSV injection."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _result(path: Path) -> Report | ReportError:
    try:
        return read_file(path)
    except ReportError as error:
        return error


def _line(result: Report | ReportError) -> str:
    if isinstance(result, ReportError):
        return f"NOT VALID: {result}"
    num_done, num_exercises = (
        sum(getattr(lesson, field) for lesson in result.lessons) for field in ("done", "total")
    )
    return f"valid, {result.name or 'without a name'}, {num_done} of {num_exercises} exercises"


def _format(path: Path) -> Literal["html", "json"]:
    if path.suffix == ".html":
        return "html"
    if path.suffix == ".json":
        return "json"
    raise ReportError(f"a report is a .html or a .json file; {path.name} is neither.")
