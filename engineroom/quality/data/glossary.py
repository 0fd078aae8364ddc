"""Read `docs/glossary.md`, which has one term a line.

The form of a line is `- **Name** (other name; other name): First sentence. Second sentence.`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

GLOSSARY = Path(__file__).with_name("glossary.md")  # a link to the page; a wheel contains the file itself
LINE = re.compile(r"^- \*\*(?P<name>.+?)\*\*(?: \((?P<aliases>.+?)\))?: (?P<text>.+)$")


@dataclass(frozen=True)
class Term:
    """One glossary entry. `aliases` are its other names; the first of them is shown beside the name."""

    name: str
    aliases: tuple[str, ...]
    short: str  # first sentence
    detail: str  # second sentence

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def heading(self) -> str:
        return f"{self.name} ({self.aliases[0]})" if self.aliases else self.name

    @property
    def brief(self) -> str:
        return f"{self.heading}: {self.short}"

    @property
    def answer(self) -> str:
        return f"{self.brief} {self.detail}"

    @property
    def is_acronym(self) -> bool:
        """True when the letters of the name occur in order among the initials of the first alias."""
        if not (self.aliases and self.name.isalpha() and sum(map(str.isupper, self.name)) >= 2):
            return False
        initials = iter(word[0] for word in re.split(r"[ -]", self.aliases[0].lower()) if word)
        return all(letter in initials for letter in self.name.lower())


def parse_line(line: str) -> Term:
    """Parse one entry. Raises ValueError, which says what is wrong with the line."""
    match = LINE.match(line.strip())
    if match is None:
        raise ValueError(f"not a glossary line (expected '- **Name** (other name): text'): {line!r}")
    sentences = match["text"].split(". ")
    if len(sentences) != 2 or not match["text"].endswith("."):
        raise ValueError(f"{match['name']}: expected exactly two sentences, got {match['text']!r}")
    aliases = tuple(match["aliases"].split("; ")) if match["aliases"] else ()
    return Term(match["name"], aliases, sentences[0] + ".", sentences[1])


@cache
def load_terms(path: Path = GLOSSARY) -> tuple[Term, ...]:
    """All terms in file order. Raises ValueError when a name or other name occurs twice."""
    lines = path.read_text(encoding="utf-8").splitlines()
    terms = tuple(parse_line(line) for line in lines if line.startswith("- "))
    term_names: dict[str, str] = {}  # by each of the term's names in lower case
    for term in terms:
        for name in term.names:
            if name.lower() in term_names:
                raise ValueError(f"{name!r} names both {term_names[name.lower()]!r} and {term.name!r}")
            term_names[name.lower()] = term.name
    return terms


def bare(name: str) -> str:
    """The letters and digits of a name in lower case, so that `KV-cache` equals `kv cache`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@cache
def known_names() -> frozenset[str]:
    """Every name of every term, as `bare` returns it."""
    return frozenset(bare(name) for term in load_terms() for name in term.names)
