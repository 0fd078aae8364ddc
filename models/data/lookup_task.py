"""Look a value up in a table, a list of records, or a text given in the prompt. Held out: the context."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from models.data import words as w
from models.data.copy_task import sentence
from models.data.item import Item
from models.glossary import load_terms

PAIR_FORMS = tuple(
    """What is the value of {k}?|What is {k}?|Look up {k}.|Value of {k}?|{k}?|Which value belongs to {k}?|Find {k}.
Give me the value of {k}.|What value does {k} have?|Return the value for {k}.|What is the value for {k}?""".replace(
        "\n", "|"
    ).split("|")
)
CELL_FORMS = tuple(
    """What is the {f} of {k}?|What is the {f} of {k}?|Look up the {f} of {k}.|Give me the {f} of {k}.|Find the {f} of {k}.
{f} of {k}?|Which {f} does {k} have?|What {f} does {k} have?|Tell me the {f} of {k}.""".replace(
        "\n", "|"
    ).split("|")
)


@dataclass(frozen=True)
class Source:
    """A context with one question about it."""

    context: str
    question: str
    answer: str


def absent(key: str) -> str:
    return f"There is no {key} here."


def names(rng: random.Random, count: int) -> list[str]:
    """Distinct keys of one style."""
    style = rng.randrange(5)
    made: dict[str, None] = {}
    while len(made) < count:
        noun = w.pick(rng, "services")
        key = (
            f"{noun}-{rng.randrange(1, 100)}",
            w.code(rng),
            f"{w.pick(rng, 'adjectives')}_{w.pick(rng, 'fields')}",
            f"{w.pick(rng, 'adjectives')} {w.pick(rng, 'things')}",
            (noun, w.pick(rng, "names"), w.pick(rng, "things"))[rng.randrange(3)]
            if count < 60
            else f"{noun}{rng.randrange(100)}",
        )[style]
        made[key] = None
    return list(made)


def value(rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind < 3:
        return w.number(rng, 1, 5)
    return (w.code(rng), rng.choice(w.all_words()), f"{w.number(rng, 1, 3)}.{w.number(rng, 1, 1)}")[kind - 3]


def size(rng: random.Random, largest: int) -> int:
    """Number of rows, 2 to `largest`; small ones are more frequent."""
    return int(2 * (largest / 2) ** (rng.random() ** 1.3))


def pairs(rng: random.Random) -> Source:
    """Key-value lines in one of several notations."""
    keys = names(rng, size(rng, 110) + 1)
    missing = keys.pop()
    table = {key: value(rng) for key in keys}
    style = rng.randrange(6)
    if style == 5:
        context = json.dumps(table, indent=rng.choice((None, 1)))
    else:
        mark = (": ", " = ", ",", " -> ", " | ")[style]
        context = "\n".join(f"{key}{mark}{table[key]}" for key in keys)
    key, answer = pick_key(rng, keys, missing, table)
    return Source(context, rng.choice(PAIR_FORMS).format(k=key), answer)


def pick_key(rng: random.Random, keys: list[str], missing: str, table: dict[str, str]) -> tuple[str, str]:
    key = missing if rng.random() < 0.07 else rng.choice(keys)
    return key, table.get(key, absent(key))


def columns(rng: random.Random) -> Source:
    """Rows with two to four named columns: a Markdown table, CSV, or written records."""
    fields = rng.sample(w.words()["fields"], rng.randint(2, 4))
    keys = names(rng, size(rng, 40))
    rows = {key: [value(rng) for _ in fields] for key in keys}
    style = rng.randrange(4)
    if style == 0:
        lines = [f"| name | {' | '.join(fields)} |", "|" + "---|" * (len(fields) + 1)]
        lines += [f"| {key} | {' | '.join(rows[key])} |" for key in keys]
    elif style == 1:
        lines = [",".join(["name", *fields])] + [",".join([key, *rows[key]]) for key in keys]
    else:
        mark, stop = (" ", ".") if style == 2 else (": ", "")
        lines = [
            f"{key}: " + ", ".join(f"{f}{mark}{v}" for f, v in zip(fields, rows[key])) + stop for key in keys
        ]
    key, column = rng.choice(keys), rng.randrange(len(fields))
    return Source("\n".join(lines), rng.choice(CELL_FORMS).format(f=fields[column], k=key), rows[key][column])


def facts(rng: random.Random) -> Source:
    """Short sentences, one fact each; the same name can occur with several fields."""
    keys = names(rng, size(rng, 30))
    seen = {
        (key, field): value(rng)
        for key in keys
        for field in rng.sample(w.words()["fields"], rng.randint(1, 2))
    }
    order = list(seen)
    rng.shuffle(order)
    context = rng.choice((" ", "\n")).join(
        f"The {field} of {key} is {seen[key, field]}." for key, field in order
    )
    key, field = rng.choice(order)
    return Source(context, rng.choice(CELL_FORMS).format(f=field, k=key), seen[key, field])


def needle(rng: random.Random) -> Source:
    """One fact hidden in a longer text about other things."""
    terms = load_terms()
    filler = [sentence(rng) if rng.random() < 0.5 else rng.choice(terms).detail for _ in range(size(rng, 70))]
    key, answer = rng.choice((w.pick(rng, "names"), w.pick(rng, "services"))), value(rng)
    field = rng.choice(("secret code", "password", "magic number", "room number", *w.words()["fields"]))
    filler.insert(rng.randrange(len(filler) + 1), f"The {field} of {key} is {answer}.")
    return Source(" ".join(filler), rng.choice(CELL_FORMS).format(f=field, k=key), answer)


def lookup(rng: random.Random) -> Item:
    source = rng.choices((pairs, columns, facts, needle), (45, 25, 18, 12))[0](rng)
    question = source.question[0].upper() + source.question[1:] if rng.random() < 0.7 else source.question
    key = f"lookup|{source.context}|{question}"
    if rng.random() < 0.15:
        messages = [{"role": "system", "content": source.context}, {"role": "user", "content": question}]
    else:
        lead = rng.choice(
            ("", "", "", "Table:\n", "Here is a table.\n\n", "Data:\n", "Context:\n", "Read this:\n")
        )
        gap = rng.choice(("\n\n", "\n\n", "\n"))
        text = (
            f"{question}{gap}{source.context}"
            if rng.random() < 0.12
            else f"{lead}{source.context}{gap}{question}"
        )
        messages = [{"role": "user", "content": text}]
    return Item("look-up", messages, source.answer, key)
