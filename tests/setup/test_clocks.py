"""Tests compare no clock readings, which depend on the machine, except in lines with `# clock: reason`."""

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
    """Return the last part of the name of the called function; "" when the node is no call."""
    return ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""


def reads(node: ast.AST, names: set[str]) -> bool:
    """Return True when the value is a clock reading or computed from one."""
    if CLOCK.fullmatch(called(node)) or (isinstance(node, ast.Name) and node.id in names):
        return True
    is_arithmetic = not isinstance(node, ast.Call) or called(node) in ARITHMETIC
    return is_arithmetic and any(reads(part, names) for part in ast.iter_child_nodes(node))


def assigned(function: Function) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield (target, value) of each assignment; appending to a list counts as an assignment to it."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from unpacked(target, node.value)
        elif isinstance(node, ast.AugAssign | ast.NamedExpr):
            yield node.target, node.value
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append"
        ):
            yield node.func.value, node.args[0]


def unpacked(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """Split `a, b = c, d` into (a, c) and (b, d)."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def clock_names(function: Function) -> set[str]:
    """Return the names that hold clock readings in this function."""
    names = set[str]()
    for _ in range(3):  # a name may be computed from another one
        targets = [target for target, value in assigned(function) if reads(value, names)]
        names |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
    return names


def compared(source: str) -> list[int]:
    """Return the lines that compare clock readings without a reason."""
    lines = source.splitlines()
    numbers = set[int]()
    for function in [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]:
        names = clock_names(function)
        for node in [part for part in ast.walk(function) if isinstance(part, ast.Compare)]:
            if reads(node, names) and "# clock: " not in " ".join(lines[node.lineno - 1 : node.end_lineno]):
                numbers.add(node.lineno)
    return sorted(numbers)


def test_no_comparison_of_clock_readings() -> None:
    lines = {file.relative_to(TESTS): compared(file.read_text()) for file in TESTS.rglob("*.py")}
    assert {file: numbers for file, numbers in lines.items() if numbers} == {}


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
