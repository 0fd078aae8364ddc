"""Rules for markdown cells: headings, sections, pictures, links, and no measured number typed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlparse

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tools.author.gates.notebook_file import GateRule, NotebookFile, Violation
from tools.author.work import LINKS

SECTIONS = (
    "What you will be able to do",
    "Time and money",
    "The cost",
    "On an H100",
    "An open challenge",
    "Recap",
)
MEASURED = re.compile(
    r"""(?ix)(?<![\w.])\d[\d.,]*\s*
    ( (tok|tokens?|req|requests?)[ ]?/[ ]?s(ec(ond)?)?\b | tokens?[ ](per|a)[ ]second\b
    | (ms|µs|us|ns|s|secs?|seconds?|milliseconds?)\b
    | [KMGT]i?B/s\b | [GTP]FLOPS?(/s)?\b | \u00d7(?!\s*\d) | x\b(?!\s*\d) | times[ ](faster|slower)\b | % )"""
)
FACT = re.compile(r"<!--\s*fact:\s*(\S.*?)\s*-->")
NOT_PROSE = re.compile(r"(?s)<!--.*?-->|\$\$.*?\$\$|\$[^$\n]+\$|\\\(.*?\\\)|\\\[.*?\\\]|https?://\S+")
MARKDOWN = MarkdownIt("commonmark").enable("table")


def _tokens(file: NotebookFile) -> Iterator[tuple[int, Token]]:
    for cell_number, cell in file.cells("markdown"):
        for token in MARKDOWN.parse(cell.source):
            yield cell_number, token
            for child in token.children or ():
                yield cell_number, child


def _headings(file: NotebookFile) -> list[tuple[int, int, str]]:
    """Return (cell, level, text) of each heading."""
    headings = []
    for cell_number, cell in file.cells("markdown"):
        tokens = MARKDOWN.parse(cell.source)
        for token, text in pairwise(tokens):
            if token.type == "heading_open":
                headings.append((cell_number, int(token.tag[1]), text.content))
    return headings


def heading_order(file: NotebookFile) -> list[Violation]:
    """There is one H1, at the top, and no level is skipped."""
    violations = []
    level = 0
    for cell_number, new_level, text in _headings(file):
        if new_level > level + 1:
            message = f"{text!r} is level {new_level} after level {level}."
            violations += file.violation(cell_number, "headings", message)
        if new_level == 1 and level:
            violations += file.violation(cell_number, "headings", f"{text!r} is a second H1.")
        level = new_level
    return violations if level else file.violation(0, "headings", "no H1.")


def sections(file: NotebookFile) -> list[Violation]:
    """Every section that a lesson must have is there, in the required order."""
    titles = [text for _, level, text in _headings(file) if level == 2]
    missing = [name for name in SECTIONS if name not in titles]
    if missing:
        return file.violation(0, "sections", f"missing: {', '.join(f'## {name}' for name in missing)}")
    if sorted(SECTIONS, key=titles.index) != list(SECTIONS):
        return file.violation(0, "sections", f"in another order than {', '.join(SECTIONS)}.")
    return []


def images_have_alt(file: NotebookFile) -> list[Violation]:
    """Every picture in markdown has alternative text."""
    violations = []
    for cell_number, token in _tokens(file):
        is_markdown = token.type == "image" and not token.content.strip()
        is_html = token.type in ("html_block", "html_inline") and "<img" in token.content.lower()
        if is_markdown or (is_html and not re.search(r"""alt\s*=\s*["'][^"']*\w""", token.content)):
            violations += file.violation(cell_number, "alt-text", "a picture without alternative text.")
    return violations


def no_typed_measurement(file: NotebookFile) -> list[Violation]:
    """No number with a unit of time, rate or ratio stands outside code and formulas, unless its source is named."""
    violations = []
    for cell_number, cell in file.cells("markdown"):
        for token in MARKDOWN.parse(cell.source):
            match = MEASURED.search(_prose(token)) if token.type == "inline" else None
            if match and not FACT.search(token.content):
                message = (
                    f"{match[0]!r}: print it from records/, or name its source: '<!-- fact: source -->'."
                )
                violations += file.violation(cell_number, "typed-number", message)
    return violations


def _prose(block: Token) -> str:
    """Return a block's words without inline code, formulas, comments and addresses."""
    children = block.children or ()
    text = "".join(child.content if child.type == "text" else " " for child in children)
    return NOT_PROSE.sub(" ", text)


def links_exist(file: NotebookFile) -> list[Violation]:
    """Every link leads to a web page, a lesson, a file in a folder that learners see, or a heading of the lesson."""
    violations = []
    folder = (file.root / file.path).parent
    anchors = {text.replace(" ", "-").lower() for _, _, text in _headings(file)}
    for cell_number, token in _tokens(file):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if target and not _leads_somewhere(target, folder, anchors):
            violations += file.violation(
                cell_number, "link", f"{target!r} leads nowhere; a learner sees ../{', ../'.join(LINKS)}."
            )
    return violations


def _leads_somewhere(target: str, folder: Path, anchors: set[str]) -> bool:
    address = urlparse(target)
    if address.scheme in ("http", "https", "mailto", "attachment"):
        return True
    if not address.path:
        return unquote(address.fragment).lower() in anchors
    path = Path(unquote(address.path))
    is_visible = path.parts[0] != ".." or (len(path.parts) > 1 and path.parts[1] in LINKS)
    return is_visible and not path.is_absolute() and (folder / path).exists()


RULES: list[GateRule] = [heading_order, sections, images_have_alt, no_typed_measurement, links_exist]
