"""The texts in which a page may show a command: code of Markdown, lessons, scripts, strings and comments of Python."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

from tools.author.regions import Region
from tools.author.source import SourceCell, read

MARKDOWN = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**/*.md", "deploy/**/*.md", "models/*/README.md",
            ".github/**/*.md")  # fmt: skip
SCRIPTS = ("Makefile", "Dockerfile", ".ci/run", "deploy/**/*.sh", "deploy/**/*.y*ml", ".github/**/*.y*ml",
           ".devcontainer/*.json", ".pre-commit-config.yaml")  # fmt: skip
PYTHON = ("bootstrap.py", "engineroom/**/*.py", "labs/**/*.py", "models/**/*.py", "tools/**/*.py")
TESTS = ("tests/**/*.py",)  # docstrings alone: the other strings are input, often wrong on purpose
LESSONS = ("solutions/[0-9][0-9]_*.py",)
PARSER = MarkdownIt("commonmark").enable("table")


class PageText(NamedTuple):
    """A piece of a page. ``is_shell``: it is a shell's code, where `|` is a pipe."""

    file: str
    line: int
    text: str
    is_shell: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def page_texts(root: Path) -> Iterator[PageText]:
    """Yield the pieces of all pages below ``root`` that may show a command."""
    for path in _files(root, MARKDOWN):
        yield from markdown_texts(path.read_text(encoding="utf-8"), _name(path, root))
    for path in _files(root, SCRIPTS):
        yield PageText(_name(path, root), 1, path.read_text(encoding="utf-8"), is_shell=True)
    for path in _files(root, PYTHON):
        yield from python_texts(path.read_text(encoding="utf-8"), _name(path, root))
    for path in _files(root, TESTS):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        yield PageText(_name(path, root), 1, docstring or "")
    for path in _files(root, LESSONS):
        for cell in read(path).cells:
            yield from _lesson_texts(cell, _name(path, root))


def markdown_texts(text: str, file: str, first_line: int = 1) -> Iterator[PageText]:
    """Yield code spans, in backticks, and code blocks."""
    for token in PARSER.parse(text):
        line = first_line + (token.map or [0])[0]
        if token.type in ("fence", "code_block"):
            yield PageText(file, line, token.content, is_shell=True)
        for child in token.children or ():
            if child.type == "code_inline":
                yield PageText(file, line, f"`{child.content}`")


def python_texts(source: str, file: str, first_line: int = 1) -> Iterator[PageText]:
    """Yield strings, with X for each value in an f-string, and comments."""
    offset = first_line - 1
    tree = ast.parse(source)
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
            yield PageText(file, offset + node.lineno, "".join(map(str, values)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield PageText(file, offset + node.lineno, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield PageText(file, offset + token.start[0], token.string)


def _lesson_texts(cell: SourceCell, file: str) -> Iterator[PageText]:
    lines = [line for part in cell.parts for line in (part.solved() if isinstance(part, Region) else [part])]
    text = "\n".join(lines)
    if cell.kind == "markdown":
        yield from markdown_texts(text, file, cell.line)
    else:
        code = "\n".join("" if line.lstrip().startswith("%") else line for line in lines)
        yield from python_texts(code, file, cell.line)


def _files(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_file())


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root))
