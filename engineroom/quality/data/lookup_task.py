"""Look up a value in a table, a list of records or a text that the prompt contains. Held out: the context."""

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
class Passage:
    """A context, with questions about it and their answers."""

    context: str
    questions: list[tuple[str, str]]  # each with its answer


def question_count(rng: random.Random) -> int:
    """The number of questions about one context; several questions teach more per token."""
    return rng.choice((1, 1, 2, 4, 6, 8))


def absent(key: str) -> str:
    return f"There is no {key} here."


def names(rng: random.Random, count: int) -> list[str]:
    """Distinct keys of one style."""
    style = rng.randrange(5)
    keys: dict[str, None] = {}  # a set in the order of insertion
    while len(keys) < count:
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
        keys[key] = None
    return list(keys)


def value(rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind < 3:
        return w.number(rng, 1, 5)
    return (w.code(rng), rng.choice(w.all_words()), f"{w.number(rng, 1, 3)}.{w.number(rng, 1, 1)}")[kind - 3]


def size(rng: random.Random, largest: int) -> int:
    """A number of rows, 2 to `largest`; small numbers are more frequent."""
    return int(2 * (largest / 2) ** (rng.random() ** 1.3))


def pairs(rng: random.Random) -> Passage:
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
        separator = rng.choice((", ", "; ")) if inline else "\n"
        context = separator.join(f"{key}{mark}{table[key]}" for key in keys)
    asked_keys = [missing if rng.random() < 0.07 else rng.choice(keys) for _ in range(question_count(rng))]
    questions = [(rng.choice(PAIR_FORMS).format(k=key), table.get(key, absent(key))) for key in asked_keys]
    return Passage(context, questions)


def ask_cells(rng: random.Random, cells: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Questions about cells, which are a value by (row, field), and their answers."""
    asked_cells = [rng.choice(list(cells)) for _ in range(question_count(rng))]
    return [(rng.choice(CELL_FORMS).format(f=field, k=key), cells[key, field]) for key, field in asked_cells]


def records(rng: random.Random) -> Passage:
    """One record a line, with the name of the field beside each value, like prose or as JSON."""
    fields = rng.sample(w.words()["fields"], rng.randint(2, 4))
    keys = names(rng, size(rng, 42))
    cells = {(key, field): value(rng) for key in keys for field in fields}
    style = rng.randrange(3)
    lines = [record_line(key, {field: cells[key, field] for field in fields}, style) for key in keys]
    return Passage("\n".join(lines), ask_cells(rng, cells))


def record_line(key: str, row: dict[str, str], style: int) -> str:
    if style == 2:
        return json.dumps({"name": key, **row})
    mark, stop = (" ", ".") if style == 0 else (": ", "")
    return f"{key}: " + ", ".join(f"{field}{mark}{value}" for field, value in row.items()) + stop


def facts(rng: random.Random) -> Passage:
    """Short sentences of one fact each; a name can occur with several fields."""
    fields = w.words()["fields"]
    keys = names(rng, size(rng, 40))
    cells = {(key, field): value(rng) for key in keys for field in rng.sample(fields, rng.randint(1, 2))}
    order = list(cells)
    rng.shuffle(order)
    context = rng.choice((" ", "\n")).join(
        f"The {field} of {key} is {cells[key, field]}." for key, field in order
    )
    return Passage(context, ask_cells(rng, cells))


def about_me(rng: random.Random) -> Passage:
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
    asked_fields = [rng.choice(list(table)) for _ in range(question_count(rng))]
    questions = [(rng.choice(phrasings).format(f=field), table[field]) for field in asked_fields]
    return Passage(context, questions)


def needle(rng: random.Random) -> Passage:
    """One to three facts, hidden in a longer text about other things."""
    terms = load_terms()
    sentences = [
        sentence(rng) if rng.random() < 0.5 else rng.choice(terms).detail for _ in range(size(rng, 78))
    ]
    cells: dict[tuple[str, str], str] = {}
    for _ in range(rng.randint(1, 3)):
        key = rng.choice((w.pick(rng, "names"), w.pick(rng, "services")))
        field = rng.choice(("secret code", "password", "magic number", "room number", *w.words()["fields"]))
        if (key, field) not in cells:
            cells[key, field] = value(rng)
            index = rng.randrange(len(sentences) + 1)
            sentences.insert(index, f"The {field} of {key} is {cells[key, field]}.")
    return Passage(" ".join(sentences), ask_cells(rng, cells))


def opening(rng: random.Random, context: str, question: str) -> Chat:
    """The context and the first question: either of them first, or the context as a system turn."""
    if rng.random() < 0.15:
        return [{"role": "system", "content": context}, *user(question)]
    lead = rng.choice(
        ("", "", "", "Table:\n", "Here is a table.\n\n", "Data:\n", "Context:\n", "Read this:\n")
    )
    gap = rng.choice(("\n\n", "\n\n", "\n") if "\n" in context else ("\n\n", "\n", " ", ". "))
    return user(f"{question}{gap}{context}" if rng.random() < 0.12 else f"{lead}{context}{gap}{question}")


def lookup(rng: random.Random) -> Item:
    """A conversation about one context, whose last question is the item's."""
    passage = rng.choices((pairs, records, facts, needle, about_me), (41, 25, 18, 12, 4))[0](rng)
    questions = [
        (question[0].upper() + question[1:] if rng.random() < 0.7 else question, answer)
        for question, answer in passage.questions
    ]
    first_question, _ = questions[0]
    _, last_answer = questions[-1]
    messages = opening(rng, passage.context, first_question)
    for (_, answer), (question, _) in pairwise(questions):
        messages += [{"role": "assistant", "content": answer}, *user(question)]
    return Item("look-up", messages, last_answer, f"lookup|{passage.context}")
