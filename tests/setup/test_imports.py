"""A lab imports the kit and labs before it in the course, never one that comes after; the kit imports no lab."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# in the order of the course; engineroom.quality scores any model and needs none of the lessons
ORDER = [
    "kit",
    "serving",
    "preflight",
    "quality",
    "load",
    "monitoring",
    "trtllm",
    "checkpoint",
    "kernels",
    "engine",
    "limits",
    "openai",
    "triton_model",
    "triton",
    "compare",
]
TOOLS = {"author", "cli"}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("labs.")}


def test_every_lab_has_its_place() -> None:
    assert {path.name for path in (ROOT / "labs").iterdir() if (path / "__init__.py").exists()} == {
        *ORDER,
        "author",
    }


@pytest.mark.parametrize("lab", ORDER)
def test_no_back_edge(lab: str) -> None:
    files = list((ROOT / "labs" / lab).rglob("*.py"))
    assert files
    earlier = set(ORDER[: ORDER.index(lab) + 1])
    assert {(file.name, name) for file in files for name in imported(file) - earlier} == set()
