"""Rules for executed notebooks: every cell ran, in order, and its output can be compared and read."""

from __future__ import annotations

import re

from nbformat import NotebookNode

from tools.author.gates.notebook_file import GateRule, NotebookFile, Violation, output_text

MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:root|tmp|home/\w+|Users/\w+)/[^\s\"'<>]*")
IMG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
ALT = re.compile(r"""\balt\s*=\s*["'][^"']*\w""", re.IGNORECASE)


def ran_in_order(file: NotebookFile) -> list[Violation]:
    """At least one cell ran, and the counts are 1..n without a gap."""
    counts = [(cell_number, cell.execution_count) for cell_number, cell in file.cells("code")]
    if not counts:
        return file.violation(0, "ran", "no code cell: nothing ran.")
    violations = []
    for expected, (cell_number, count) in enumerate(counts, 1):
        if count != expected:
            message = f"its count is {count}, expected {expected}: run all cells, from a fresh kernel."
            violations += file.violation(cell_number, "ran", message)
    return violations


def no_errors(file: NotebookFile) -> list[Violation]:
    """No output is an exception."""
    violations = []
    for cell_number, cell in file.cells("code"):
        for output in cell.outputs:
            if output.output_type == "error":
                violations += file.violation(cell_number, "error", f"{output.ename}: {output.evalue}")
    return violations


def no_stderr(file: NotebookFile) -> list[Violation]:
    """No output is on stderr, which a notebook shows in red: a learner reads it as an error."""
    violations = []
    for cell_number, cell in file.cells("code"):
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                first = output_text(output).strip().splitlines()[:1]
                message = f"{' '.join(first)[:80]!r}: a learner reads it as an error; remove its cause."
                violations += file.violation(cell_number, "stderr", message)
    return violations


def comparable(file: NotebookFile) -> list[Violation]:
    """A cell whose output nbval compares has a count and an output with text."""
    violations = []
    for cell_number, cell in file.cells("code"):
        is_compared = (
            "nbval-check-output" in cell.metadata.get("tags", []) or "NBVAL_CHECK_OUTPUT" in cell.source
        )
        if not is_compared:
            continue
        if cell.execution_count is None or not cell.outputs:
            violations += file.violation(
                cell_number, "comparable", "to be compared, but no stored output or no count."
            )
        elif not any(output_text(output).strip() for output in cell.outputs):
            violations += file.violation(
                cell_number, "comparable", "to be compared, but nbval compares no image or widget."
            )
    return violations


def figures_have_alt(file: NotebookFile) -> list[Violation]:
    """Every picture has alternative text, which labs.kit.show adds."""
    violations = []
    for cell_number, cell in file.cells("code"):
        for output in cell.outputs:
            if output.output_type in ("display_data", "execute_result") and not _has_alt(output):
                message = "a picture without alternative text: show it by labs.kit.show."
                violations += file.violation(cell_number, "alt-text", message)
    return violations


def _has_alt(output: NotebookNode) -> bool:
    html = str(output.data.get("text/html", ""))
    images = IMG.findall(html)
    if not all(ALT.search(image) for image in images):
        return False
    kinds = [kind for kind in output.data if kind.startswith("image/")]
    metadata = [output.metadata, *(output.metadata.get(kind, {}) for kind in kinds)]
    return not kinds or bool(images) or any(str(fields.get("alt", "")).strip() for fields in metadata)


def no_machine_path(file: NotebookFile) -> list[Violation]:
    """No output contains a path of the machine it was run on."""
    violations = []
    for cell_number, cell in file.cells("code"):
        for output in cell.outputs:
            match = MACHINE_PATH.search(output_text(output))
            if match:
                violations += file.violation(
                    cell_number, "machine-path", f"the output shows {match[0]!r}; print a shorter name."
                )
    return violations


RULES: list[GateRule] = [ran_in_order, no_errors, no_stderr, comparable, figures_have_alt, no_machine_path]
