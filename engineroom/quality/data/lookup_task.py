"""Look a value up in a table, a list of records, or a text given in the prompt. Held out: the context."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import pairwise

from engineroom.quality.data import words as w
from engineroom.quality.data.copy_task import sentence
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.item import Chat, Item, user

PAIR_FORMS = w.forms(
    """What is the value of {k}?|What is {k}?|Look up {k}.|Value of {k}?|{k}?
Which value belongs to {k}?|Find {k}.|And {k}?|And the value of {k}?
Give me the value of {k}.|What value does {k} have?|Return the value for {k}.
What is the value for {k}?"""
)
CELL_FORMS = w.forms(
    """What is the {f} of {k}?|What is the {f} of {k}?|Look up the {f} of {k}.|Give me the {f} of {k}.
Find the {f} of {k}.
{f} of {k}?|And the {f} of {k}?|Which {f} does {k} have?|What {f} does {k} have?
Tell me the {f} of {k}."""
)


@dataclass(frozen=True)
class Source:
    """A context with questions about it and their answers."""

    context: str
    asked: list[tuple[str, str]]


def question_count(rng: random.Random) -> int:
    """How many questions are asked about one context; several teach more per token."""
    return rng.choice((1, 1, 2, 4, 6, 8))


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
    keys = names(rng, size(rng, 125) + 1)
    missing = keys.pop()
    table = {key: value(rng) for key in keys}
    style = rng.randrange(7)
    if style == 6:
        context = json.dumps(table, indent=rng.choice((None, 1)))
    else:
        mark = (": ", " = ", ",", " -> ", " | ", "=")[style]
        inline = len(keys) < 12 and style != 2 and rng.random() < 0.4
        context = (rng.choice((", ", "; ")) if inline else "\n").join(f"{k}{mark}{table[k]}" for k in keys)
    chosen = [missing if rng.random() < 0.07 else rng.choice(keys) for _ in range(question_count(rng))]
    return Source(context, [(rng.choice(PAIR_FORMS).format(k=k), table.get(k, absent(k))) for k in chosen])


def ask_cells(rng: random.Random, cells: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Questions about cells, given as {(row, field): value}."""
    chosen = [rng.choice(list(cells)) for _ in range(question_count(rng))]
    return [(rng.choice(CELL_FORMS).format(f=f, k=k), cells[k, f]) for k, f in chosen]


def records(rng: random.Random) -> Source:
    """One record a line, each value beside the name of its field, in prose-like or JSON notation."""
    fields = rng.sample(w.words()["fields"], rng.randint(2, 4))
    keys = names(rng, size(rng, 42))
    cells = {(key, field): value(rng) for key in keys for field in fields}
    style = rng.randrange(3)
    lines = [record_line(key, {field: cells[key, field] for field in fields}, style) for key in keys]
    return Source("\n".join(lines), ask_cells(rng, cells))


def record_line(key: str, row: dict[str, str], style: int) -> str:
    if style == 2:
        return json.dumps({"name": key, **row})
    mark, stop = (" ", ".") if style == 0 else (": ", "")
    return f"{key}: " + ", ".join(f"{field}{mark}{value}" for field, value in row.items()) + stop


def facts(rng: random.Random) -> Source:
    """Short sentences, one fact each; the same name can occur with several fields."""
    fields = w.words()["fields"]
    keys = names(rng, size(rng, 40))
    cells = {(key, field): value(rng) for key in keys for field in rng.sample(fields, rng.randint(1, 2))}
    order = list(cells)
    rng.shuffle(order)
    context = rng.choice((" ", "\n")).join(
        f"The {field} of {key} is {cells[key, field]}." for key, field in order
    )
    return Source(context, ask_cells(rng, cells))


def about_me(rng: random.Random) -> Source:
    """One to four statements of the user, such as `My colour is blue.`"""
    kind = rng.choice(("", "favourite ", "new ", "old "))
    table = {f"{kind}{field}": value(rng) for field in rng.sample(w.words()["fields"], rng.randint(1, 4))}
    context = " ".join(f"My {field} is {answer}." for field, answer in table.items())
    phrasings = (
        "What is my {f}?",
        "What is my {f}?",
        "Tell me my {f}.",
        "What's my {f}?",
        "Do you know my {f}?",
    )
    chosen = [rng.choice(list(table)) for _ in range(question_count(rng))]
    return Source(context, [(rng.choice(phrasings).format(f=field), table[field]) for field in chosen])


def needle(rng: random.Random) -> Source:
    """One to three facts hidden in a longer text about other things."""
    terms = load_terms()
    text = [sentence(rng) if rng.random() < 0.5 else rng.choice(terms).detail for _ in range(size(rng, 78))]
    cells: dict[tuple[str, str], str] = {}
    for _ in range(rng.randint(1, 3)):
        key = rng.choice((w.pick(rng, "names"), w.pick(rng, "services")))
        field = rng.choice(("secret code", "password", "magic number", "room number", *w.words()["fields"]))
        if (key, field) not in cells:
            cells[key, field] = value(rng)
            text.insert(rng.randrange(len(text) + 1), f"The {field} of {key} is {cells[key, field]}.")
    return Source(" ".join(text), ask_cells(rng, cells))


def opening(rng: random.Random, context: str, question: str) -> Chat:
    """The context and the first question: context first, question first, or context as system turn."""
    if rng.random() < 0.15:
        return [{"role": "system", "content": context}, *user(question)]
    lead = rng.choice(
        ("", "", "", "Table:\n", "Here is a table.\n\n", "Data:\n", "Context:\n", "Read this:\n")
    )
    gap = rng.choice(("\n\n", "\n\n", "\n") if "\n" in context else ("\n\n", "\n", " ", ". "))
    return user(f"{question}{gap}{context}" if rng.random() < 0.12 else f"{lead}{context}{gap}{question}")


def lookup(rng: random.Random) -> Item:
    source = rng.choices((pairs, records, facts, needle, about_me), (41, 25, 18, 12, 4))[0](rng)
    asked = [(q[0].upper() + q[1:] if rng.random() < 0.7 else q, answer) for q, answer in source.asked]
    messages = opening(rng, source.context, asked[0][0])
    for (_, answer), (question, _) in pairwise(asked):
        messages += [{"role": "assistant", "content": answer}, *user(question)]
    return Item("look-up", messages, asked[-1][1], f"lookup|{source.context}")
