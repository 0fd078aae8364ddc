"""Rules for markdown: headings, sections, pictures, links, and no measured number typed by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlparse

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tools.author.gates.book import Book, Problem, Rule
from tools.author.work import LINKS

SECTIONS = ("What you will be able to do", "Time and money", "On an H100", "Recap")
MEASURED = re.compile(
    r"""(?ix)(?<![\w.])\d[\d.,]*\s*
    ( (tok|tokens?|req|requests?)[ ]?/[ ]?s(ec(ond)?)?\b | tokens?[ ](per|a)[ ]second\b
    | (ms|µs|us|ns|s|secs?|seconds?|milliseconds?)\b
    | [KMGT]i?B/s\b | [GTP]FLOPS?(/s)?\b | \u00d7(?!\s*\d) | x\b(?!\s*\d) | times[ ](faster|slower)\b | % )"""
)
FACT = re.compile(r"<!--\s*fact:\s*(\S.*?)\s*-->")
NOT_PROSE = re.compile(r"(?s)<!--.*?-->|\$\$.*?\$\$|\$[^$\n]+\$|\\\(.*?\\\)|\\\[.*?\\\]|https?://\S+")
MARKDOWN = MarkdownIt("commonmark").enable("table")


def _tokens(book: Book) -> Iterator[tuple[int, Token]]:
    for number, cell in book.cells("markdown"):
        for token in MARKDOWN.parse(cell.source):
            yield number, token
            for child in token.children or ():
                yield number, child


def _headings(book: Book) -> list[tuple[int, int, str]]:
    """(cell, level, text) of each heading."""
    found = []
    for number, cell in book.cells("markdown"):
        tokens = MARKDOWN.parse(cell.source)
        for token, text in pairwise(tokens):
            if token.type == "heading_open":
                found.append((number, int(token.tag[1]), text.content))
    return found


def heading_order(book: Book) -> list[Problem]:
    """One H1, which is first, and no level left out."""
    found = []
    level = 0
    for number, this, text in _headings(book):
        if this > level + 1:
            found += book.problem(number, "headings", f"{text!r} is level {this} after level {level}.")
        if this == 1 and level:
            found += book.problem(number, "headings", f"{text!r} is a second H1.")
        level = this
    return found if level else book.problem(0, "headings", "no H1.")


def sections(book: Book) -> list[Problem]:
    """The sections that each lesson has, in their order."""
    titles = [text for _, level, text in _headings(book) if level == 2]
    missing = [name for name in SECTIONS if name not in titles]
    if missing:
        return book.problem(0, "sections", f"missing: {', '.join(f'## {name}' for name in missing)}")
    if sorted(SECTIONS, key=titles.index) != list(SECTIONS):
        return book.problem(0, "sections", f"in another order than {', '.join(SECTIONS)}.")
    return []


def images_have_alt(book: Book) -> list[Problem]:
    """Each picture in markdown has alternative text."""
    found = []
    for number, token in _tokens(book):
        markdown = token.type == "image" and not token.content.strip()
        html = token.type in ("html_block", "html_inline") and "<img" in token.content.lower()
        if markdown or (html and not re.search(r"""alt\s*=\s*["'][^"']*\w""", token.content)):
            found += book.problem(number, "alt-text", "a picture without alternative text.")
    return found


def no_typed_measurement(book: Book) -> list[Problem]:
    """No number with a unit of time, rate or ratio outside code and formulas, unless its source is named."""
    found = []
    for number, cell in book.cells("markdown"):
        for token in MARKDOWN.parse(cell.source):
            match = MEASURED.search(_prose(token)) if token.type == "inline" else None
            if match and not FACT.search(token.content):
                message = (
                    f"{match[0]!r}: print it from records/, or name its source: '<!-- fact: source -->'."
                )
                found += book.problem(number, "typed-number", message)
    return found


def _prose(block: Token) -> str:
    """A block's words without inline code, formulas, comments and addresses."""
    text = "".join(c.content if c.type == "text" else " " for c in block.children or ())
    return NOT_PROSE.sub(" ", text)


def links_exist(book: Book) -> list[Problem]:
    """A link or picture leads to a lesson, a file in a folder that learners see, or a heading of the lesson."""
    found = []
    folder = (book.root / book.file).parent
    anchors = {text.replace(" ", "-").lower() for _, _, text in _headings(book)}
    for number, token in _tokens(book):
        target = str(token.attrGet("href") or token.attrGet("src") or "")
        if target and not _leads_somewhere(target, folder, anchors):
            found += book.problem(
                number, "link", f"{target!r} leads nowhere; a learner sees ../{', ../'.join(LINKS)}."
            )
    return found


def _leads_somewhere(target: str, folder: Path, anchors: set[str]) -> bool:
    address = urlparse(target)
    if address.scheme in ("http", "https", "mailto", "attachment"):
        return True
    if not address.path:
        return unquote(address.fragment).lower() in anchors
    path = Path(unquote(address.path))
    shown = path.parts[0] != ".." or (len(path.parts) > 1 and path.parts[1] in LINKS)
    return shown and not path.is_absolute() and (folder / path).exists()


RULES: list[Rule] = [heading_order, sections, images_have_alt, no_typed_measurement, links_exist]
