"""Rules for executed notebooks: everything ran, in order, and what it left can be compared and read."""

from __future__ import annotations

import re

from nbformat import NotebookNode

from tools.author.gates.book import Book, Problem, Rule, output_text

MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:root|tmp|home/\w+|Users/\w+)/[^\s\"'<>]*")
IMG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
ALT = re.compile(r"""\balt\s*=\s*["'][^"']*\w""", re.IGNORECASE)


def ran_in_order(book: Book) -> list[Problem]:
    """Counts are 1..n, without gap; and something ran."""
    counts = [(number, cell.execution_count) for number, cell in book.cells("code")]
    if not counts:
        return book.problem(0, "ran", "no code cell: nothing ran.")
    found = []
    for expected, (number, count) in enumerate(counts, 1):
        if count != expected:
            message = f"its count is {count}, expected {expected}: run all cells, from a fresh kernel."
            found += book.problem(number, "ran", message)
    return found


def no_errors(book: Book) -> list[Problem]:
    """No stored exception."""
    found = []
    for number, cell in book.cells("code"):
        for output in cell.outputs:
            if output.output_type == "error":
                found += book.problem(number, "error", f"{output.ename}: {output.evalue}")
    return found


def no_stderr(book: Book) -> list[Problem]:
    """No warning on a red ground: a learner reads it as an error."""
    found = []
    for number, cell in book.cells("code"):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                first = output_text(output).strip().splitlines()[:1]
                message = f"{' '.join(first)[:80]!r}: a learner reads it as an error; mend its cause."
                found += book.problem(number, "stderr", message)
    return found


def comparable(book: Book) -> list[Problem]:
    """A cell whose output nbval shall compare has outputs, and text in them, and its count."""
    found = []
    for number, cell in book.cells("code"):
        marked = "nbval-check-output" in cell.metadata.get("tags", []) or "NBVAL_CHECK_OUTPUT" in cell.source
        if not marked:
            continue
        if cell.execution_count is None or not cell.outputs:
            found += book.problem(number, "comparable", "to be compared, but no stored output or no count.")
        elif not any(output_text(output).strip() for output in cell.outputs):
            found += book.problem(
                number, "comparable", "to be compared, but nbval compares no image or widget."
            )
    return found


def figures_have_alt(book: Book) -> list[Problem]:
    """Each picture has alternative text (labs.kit.show puts it there)."""
    found = []
    for number, cell in book.cells("code"):
        for output in cell.outputs:
            if output.output_type in ("display_data", "execute_result") and not _has_alt(output):
                message = "a picture without alternative text: show it by labs.kit.show."
                found += book.problem(number, "alt-text", message)
    return found


def _has_alt(output: NotebookNode) -> bool:
    html = str(output.data.get("text/html", ""))
    images = IMG.findall(html)
    if not all(ALT.search(image) for image in images):
        return False
    kinds = [kind for kind in output.data if kind.startswith("image/")]
    said = [output.metadata, *(output.metadata.get(kind, {}) for kind in kinds)]
    return not kinds or bool(images) or any(str(where.get("alt", "")).strip() for where in said)


def no_machine_path(book: Book) -> list[Problem]:
    """No folder of the machine it was run on."""
    found = []
    for number, cell in book.cells("code"):
        for output in cell.outputs:
            match = MACHINE_PATH.search(output_text(output))
            if match:
                found += book.problem(
                    number, "machine-path", f"the output shows {match[0]!r}; print a shorter name."
                )
    return found


RULES: list[Rule] = [ran_in_order, no_errors, no_stderr, comparable, figures_have_alt, no_machine_path]
