"""Rules for commands that a lesson shows: whatever looks like a command line works when it is typed as it stands."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from tools.author.gates.notebook_file import GateRule, NotebookFile, Violation, output_text

PROGRAMS = r"(?:engineroom|vllm|aiperf|trtllm-\w+|python3?|curl|make)"
COMMAND_LINE = re.compile(rf"(?m)^(?:\w+=\S+ )*{PROGRAMS} .*")
PLACEHOLDER = re.compile(r"\{\w*\}")
ALTERNATIVES = re.compile(r"^engineroom [\w -]+\|")
TERMINAL = re.compile(r"\b(?:in|into) a terminal\b")
ACTIVATE = "source .venv/bin/activate"
MARKDOWN = MarkdownIt("commonmark").enable("table")


def no_placeholder(file: NotebookFile) -> list[Violation]:
    """No command line in an output or a code block has a placeholder such as {port}."""
    violations = []
    for cell_number, cell in file.cells("code"):
        for output in cell.outputs:
            for line in COMMAND_LINE.findall(output_text(output)):
                if match := PLACEHOLDER.search(line):
                    message = f"{line[:60]!r} has {match[0]!r}: print a value that can be typed."
                    violations += file.violation(cell_number, "terminal", message)
    return violations


def no_alternatives(file: NotebookFile) -> list[Violation]:
    """No command is written with alternatives: typed as it stands, `engineroom build | inspect` is a pipe."""
    violations = []
    for cell_number, cell in file.cells("markdown"):
        spans = [child for token in MARKDOWN.parse(cell.source) for child in token.children or ()]
        for span in spans:
            if span.type == "code_inline" and ALTERNATIVES.match(span.content):
                message = f"`{span.content}` is a pipe when it is typed: write each command in full."
                violations += file.violation(cell_number, "terminal", message)
    return violations


def says_what_to_activate(file: NotebookFile) -> list[Violation]:
    """A lesson that sends its reader into a terminal says what to do in one outside JupyterLab."""
    cells = [(number, cell) for number, cell in file.cells("markdown") if TERMINAL.search(cell.source)]
    if not cells or any(ACTIVATE in cell.source for _, cell in file.cells("markdown")):
        return []
    message = f"in a terminal outside JupyterLab there are no such commands: name `{ACTIVATE}`."
    return file.violation(cells[0][0], "terminal", message)


RULES: list[GateRule] = [no_placeholder, no_alternatives, says_what_to_activate]
