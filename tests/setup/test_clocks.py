"""Tests compare no clock readings, which depend on the machine; a line that may says why: `# clock: reason`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCK = re.compile(r"(time|perf_counter|monotonic|process_time)(_ns)?|now")
ARITHMETIC = {"abs", "int", "max", "min", "round", "sorted", "sum"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def called(node: ast.AST) -> str:
    """The last part of a called name, "" for what is no call."""
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def reads(node: ast.AST, names: set[str]) -> bool:
    """Whether the value is a clock reading or computed from one."""
    if CLOCK.fullmatch(called(node)) or (isinstance(node, ast.Name) and node.id in names):
        return True
    inside = not isinstance(node, ast.Call) or called(node) in ARITHMETIC
    return inside and any(reads(part, names) for part in ast.iter_child_nodes(node))


def assigned(function: Function) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(target, value) of each assignment; a list gets what is appended to it."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.NamedExpr):
            for target in getattr(node, "targets", None) or [node.target]:
                both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                yield from zip(target.elts, node.value.elts, strict=True) if both else [(target, node.value)]
        elif called(node) == "append":
            yield node.func.value, node.args[0]


def clock_names(function: Function) -> set[str]:
    names = set[str]()
    for _ in range(3):  # a name may be computed from another one
        targets = [target for target, value in assigned(function) if reads(value, names)]
        names |= {part.id for one in targets for part in ast.walk(one) if isinstance(part, ast.Name)}
    return names


def compared(source: str) -> list[int]:
    """The lines with a comparison of clock readings and without a reason."""
    tree, lines, found = ast.parse(source), source.splitlines(), set[int]()
    for function in [node for node in ast.walk(tree) if isinstance(node, Function)]:
        names = clock_names(function)
        for node in [part for part in ast.walk(function) if isinstance(part, ast.Compare)]:
            if reads(node, names) and "# clock: " not in " ".join(lines[node.lineno - 1 : node.end_lineno]):
                found.add(node.lineno)
    return sorted(found)


def test_no_comparison_of_clock_readings() -> None:
    found = {file.relative_to(TESTS): compared(file.read_text()) for file in TESTS.rglob("*.py")}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("assert time.monotonic() - run() < 5", True),
        ("begin = perf_counter(); seconds = round(perf_counter() - begin); assert seconds <= 3", True),
        ("a, b = run(), time.time(); readings.append(b); assert min(readings) > 0", True),
        ("while monotonic() < end: pass  # clock: a deadline", False),
        ("begin = time.time(); answer = run(begin); assert len(answer) > 3", False),
    ],
)
def test_it_finds_them(line: str, refused: bool) -> None:
    assert compared(f"def test() -> None:\n    {line}\n") == [2] * refused
