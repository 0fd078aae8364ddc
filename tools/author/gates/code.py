"""Rules for code cells: nothing that could fail unseen."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.author.gates.book import Book, Problem, Rule, called, output_text, tree
from tools.author.source import MAGICS, compile_cell

MOST_LINES = 25
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


def _calls(book: Book) -> Iterator[tuple[int, ast.Call]]:
    for number, cell in book.cells("code"):
        for node in ast.walk(tree(cell.source)):
            if isinstance(node, ast.Call):
                yield number, node


def compiles(book: Book) -> list[Problem]:
    """Each code cell compiles; where one does not, the other rules have nothing to read."""
    found = []
    for number, cell in book.cells("code"):
        try:
            compile_cell(cell.source)
        except SyntaxError as error:
            found += book.problem(number, "compiles", f"it does not: {error.msg}, line {error.lineno}.")
    return found


def no_shell(book: Book) -> list[Problem]:
    """A failing ``!command`` or ``%%bash`` passes unseen; a lesson's code is Python."""
    found = []
    for number, call in _calls(book):
        if called(call) in SHELL:
            found += book.problem(
                number, "shell", "no '!', '%%bash' or other cell magic: call Python instead."
            )
    return found


def magics(book: Book) -> list[Problem]:
    """Line magics only from a short list."""
    found = []
    for number, call in _calls(book):
        if called(call) == "get_ipython.run_line_magic":
            name = ast.literal_eval(call.args[0])
            if name not in MAGICS:
                found += book.problem(number, "magic", f"%{name} is not one of {', '.join(MAGICS)}.")
    return found


def processes(book: Book) -> list[Problem]:
    """A child process whose death nobody would see."""
    found = []
    for number, call in _calls(book):
        name = called(call)
        checked = any(k.arg == "check" and getattr(k.value, "value", False) is True for k in call.keywords)
        if name in PROCESS:
            found += book.problem(
                number, "process", f"{name}: start it by engineroom.kit.process, which waits and kills."
            )
        elif name in RUN and not checked:
            found += book.problem(number, "process", f"{name} without check=True hides a failure.")
    return found


def skips(book: Book) -> list[Problem]:
    """A skipped cell, or one that may raise, says why."""
    found = []
    for number, cell in book.cells("code"):
        tags = SKIP_TAGS.intersection(cell.metadata.get("tags", []))
        if (tags or SKIPS.search(cell.source)) and not REASON.search(cell.source):
            found += book.problem(
                number, "skip", "a cell that is skipped or may raise needs a '# reason: …'."
            )
    return found


def fallback_text(book: Book) -> list[Problem]:
    """Words that say that something else than the real thing ran, in code or in what it printed."""
    found = []
    for number, cell in book.cells("code"):
        texts = [cell.source, *map(output_text, cell.outputs)]
        match = next(filter(None, map(FALLBACK.search, texts)), None)
        if match:
            message = (
                f"{match[0]!r}: real or absent. If another program says it: '# allow fallback-text: why'."
            )
            found += book.problem(number, "fallback-text", message)
    return found


def swallowed_errors(book: Book) -> list[Problem]:
    """An ``except`` that only prints, unless an ``else`` raises (then the exception was what was wanted)."""
    found = []
    for number, cell in book.cells("code"):
        for node in ast.walk(tree(cell.source)):
            if isinstance(node, ast.Try) and _swallows(node):
                message = "an except that only prints or passes; add 'else: raise …' if it must happen."
                found += book.problem(number, "swallowed-error", message)
            if isinstance(node, ast.Call) and called(node) in ("suppress", "contextlib.suppress"):
                found += book.problem(number, "swallowed-error", "contextlib.suppress hides an error.")
    return found


def _swallows(node: ast.Try) -> bool:
    wanted = any(isinstance(statement, ast.Raise) for statement in node.orelse)
    return not wanted and any(all(map(_silent, handler.body)) for handler in node.handlers)


def _silent(node: ast.stmt) -> bool:
    if isinstance(node, ast.Pass | ast.Continue):
        return True
    if not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) or called(node.value) in ("print", "display")


def short_cells(book: Book) -> list[Problem]:
    """A cell fits on a screen."""
    found = []
    for number, cell in enumerate(book.notebook.cells, 1):
        lines = len(cell.source.splitlines())
        if lines > MOST_LINES:
            found += book.problem(number, "long-cell", f"{lines} lines; at most {MOST_LINES}.")
    return found


RULES: list[Rule] = [no_shell, magics, processes, skips, fallback_text, swallowed_errors, short_cells]
