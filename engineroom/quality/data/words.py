"""The word list and the random strings that the items are made from."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

ONSETS = "b|bl|br|c|ch|cl|d|dr|f|fl|fr|g|gl|gr|h|j|k|kl|l|m|n|p|pl|pr|qu|r|s|sh|sk|sl|sn|st|str|t|th|tr|v|w|z"
NUCLEI = "a|e|i|o|u|ai|ea|ee|oo|ou"
CODAS = "|||b|ck|d|f|g|l|lm|m|n|nd|ng|p|r|rk|s|sh|st|t|x"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = UPPER.lower()
PUNCTUATION = "!#$%&()*+,-./:;=?@[]^_{}~"
FOREIGN = "àáâäåæçèéêëíîïñòóôöøùúûüýßčšžłőğışαβγδλμπσωабвгдежз中文日本語한국🙂🚀✅→≤°€£"


def forms(text: str) -> tuple[str, ...]:
    """The phrasings in a text, which `|` or a line break separates."""
    return tuple(text.replace("\n", "|").split("|"))


@cache
def words() -> dict[str, tuple[str, ...]]:
    """The words of each category, from `words.txt`."""
    lines = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines()
    categories = (line.split(": ") for line in lines)
    return {name: tuple(text.split()) for name, text in categories}


@cache
def all_words() -> tuple[str, ...]:
    return tuple(sorted({word for group in words().values() for word in group}))


def pick(rng: random.Random, category: str) -> str:
    return rng.choice(words()[category])


def invented_word(rng: random.Random) -> str:
    """A pronounceable word that means nothing, such as `blorket`."""
    syllable = [forms(ONSETS), forms(NUCLEI), forms(CODAS)]
    return "".join(rng.choice(part) for _ in range(rng.choice((1, 2, 2, 3))) for part in syllable)


def number(rng: random.Random, low: int = 1, high: int = 6) -> str:
    """A number of `low` to `high` decimal digits, without leading zeros."""
    digits = rng.randint(low, high)
    return str(rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def characters(rng: random.Random, alphabet: str, low: int, high: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randint(low, high)))


def code(rng: random.Random) -> str:
    """An identifier such as `K7Q2-19`."""
    prefix = characters(rng, UPPER + "0123456789", 2, 6)
    return prefix if rng.random() < 0.6 else f"{prefix}-{number(rng, 1, 3)}"
