"""Rules for code cells: nothing may fail without being noticed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.author.gates.notebook_file import GateRule, NotebookFile, Violation, called, output_text, tree
from tools.author.source import MAGICS, compile_cell

MAX_LINES = 25
SHELL = {"get_ipython.system", "get_ipython.getoutput", "get_ipython.run_cell_magic"}
PROCESS = {"os.system", "os.popen", "subprocess.Popen", "Popen", "subprocess.getoutput"}
RUN = {"subprocess.run", "subprocess.call"}
SKIPS = re.compile(r"(?m)^\s*#\s*(NBVAL_SKIP|NBVAL_RAISES_EXCEPTION)\s*$")
SKIP_TAGS = {"nbval-skip", "nbval-raises-exception", "raises-exception", "skip-execution"}
REASON = re.compile(r"#\s*reason:\s*\S+")
FALLBACK = re.compile(
    r"""(?ix)\b(
      mock(s|ed|ing|ups?)? | stub(s|bed)? | fak(e|ed|es|ing) | canned | dummy | pretend\w*
    | skipp(ed|ing) | simulat(e|ed|es|ing|ion|ions|or) | placeholders?
    | fall(s|ing)?[ ]back | fell[ ]back | fallback
    | (not[ ](available|found|installed)|unavailable|missing)\W{1,3}(so[ ])?(using|showing|continuing)
    )\b"""
)


def _calls(file: NotebookFile) -> Iterator[tuple[int, ast.Call]]:
    for cell_number, cell in file.cells("code"):
        for node in ast.walk(tree(cell.source)):
            if isinstance(node, ast.Call):
                yield cell_number, node


def compiles(file: NotebookFile) -> list[Violation]:
    """Every code cell compiles; the other rules need that."""
    violations = []
    for cell_number, cell in file.cells("code"):
        try:
            compile_cell(cell.source)
        except SyntaxError as error:
            violations += file.violation(
                cell_number, "compiles", f"the cell does not compile: {error.msg}, line {error.lineno}."
            )
    return violations


def no_shell(file: NotebookFile) -> list[Violation]:
    """There is no ``!command`` and no ``%%bash``, whose failure nobody would notice; a lesson's code is Python."""
    violations = []
    for cell_number, call in _calls(file):
        if called(call) in SHELL:
            violations += file.violation(
                cell_number, "shell", "no '!', '%%bash' or other cell magic: call Python instead."
            )
    return violations


def magics(file: NotebookFile) -> list[Violation]:
    """Line magics are those of a short list."""
    violations = []
    for cell_number, call in _calls(file):
        if called(call) == "get_ipython.run_line_magic":
            name = ast.literal_eval(call.args[0])
            if name not in MAGICS:
                violations += file.violation(
                    cell_number, "magic", f"%{name} is not one of {', '.join(MAGICS)}."
                )
    return violations


def processes(file: NotebookFile) -> list[Violation]:
    """There is no child process whose death nobody would notice."""
    violations = []
    for cell_number, call in _calls(file):
        name = called(call)
        values = [
            getattr(keyword.value, "value", None) for keyword in call.keywords if keyword.arg == "check"
        ]
        is_checked = values == [True]
        if name in PROCESS:
            violations += file.violation(
                cell_number, "process", f"{name}: start it by engineroom.kit.process, which waits and kills."
            )
        elif name in RUN and not is_checked:
            violations += file.violation(
                cell_number, "process", f"{name} without check=True hides a failure."
            )
    return violations


def skips(file: NotebookFile) -> list[Violation]:
    """A cell that is skipped or may raise has a reason."""
    violations = []
    for cell_number, cell in file.cells("code"):
        tags = SKIP_TAGS.intersection(cell.metadata.get("tags", []))
        if (tags or SKIPS.search(cell.source)) and not REASON.search(cell.source):
            violations += file.violation(
                cell_number, "skip", "a cell that is skipped or may raise needs a '# reason: …'."
            )
    return violations


def fallback_text(file: NotebookFile) -> list[Violation]:
    """No word in code or output says that something other than the real thing ran."""
    violations = []
    for cell_number, cell in file.cells("code"):
        texts = [cell.source, *map(output_text, cell.outputs)]
        match = next(filter(None, map(FALLBACK.search, texts)), None)
        if match:
            message = (
                f"{match[0]!r}: run the real thing. If another program says it: '# allow fallback-text: why'."
            )
            violations += file.violation(cell_number, "fallback-text", message)
    return violations


def swallowed_errors(file: NotebookFile) -> list[Violation]:
    """No ``except`` block only prints or passes, unless an ``else`` raises because the exception was expected."""
    violations = []
    for cell_number, cell in file.cells("code"):
        for node in ast.walk(tree(cell.source)):
            if isinstance(node, ast.Try) and _swallows(node):
                message = "an except that only prints or passes; add 'else: raise …' if it must happen."
                violations += file.violation(cell_number, "swallowed-error", message)
            if isinstance(node, ast.Call) and called(node) in ("suppress", "contextlib.suppress"):
                violations += file.violation(
                    cell_number, "swallowed-error", "contextlib.suppress hides an error."
                )
    return violations


def _swallows(node: ast.Try) -> bool:
    is_expected = any(isinstance(statement, ast.Raise) for statement in node.orelse)
    return not is_expected and any(all(map(_silent, handler.body)) for handler in node.handlers)


def _silent(node: ast.stmt) -> bool:
    if isinstance(node, ast.Pass | ast.Continue):
        return True
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) or called(node.value) in ("print", "display")


def short_cells(file: NotebookFile) -> list[Violation]:
    """Every cell fits on a screen."""
    violations = []
    for cell_number, cell in enumerate(file.notebook.cells, 1):
        lines = len(cell.source.splitlines())
        if lines > MAX_LINES:
            violations += file.violation(cell_number, "long-cell", f"{lines} lines; at most {MAX_LINES}.")
    return violations


RULES: list[GateRule] = [no_shell, magics, processes, skips, fallback_text, swallowed_errors, short_cells]
