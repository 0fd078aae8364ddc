"""Conversations of two to four turns. Some of the last turns make no sense without the earlier ones."""

from __future__ import annotations

import random

from engineroom.quality.data import words as w
from engineroom.quality.data.arithmetic_task import arithmetic
from engineroom.quality.data.copy_task import copying
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.glossary_task import definition, glossary
from engineroom.quality.data.item import HELLO, Chat, Item, Split, draw, split_of, user
from engineroom.quality.data.offtopic_task import offtopic

REPEAT = (
    "Repeat that.",
    "Say that again.",
    "Again, please.",
    "Repeat your answer.",
    "Can you repeat that?",
    "repeat that",
)
SHORTER = (
    "Shorter, please.",
    "In one sentence.",
    "In one sentence, please.",
    "Say that in one sentence.",
    "shorter",
)
LOUDER = (
    "In upper case.",
    "Say that in upper case.",
    "Repeat that in upper case.",
    "Now in capital letters.",
)
MY_NAME = ("My name is {x}.", "I am {x}.", "Hi, I am {x}.", "Hello, my name is {x}.", "my name is {x}")
ASK_NAME = ("What is my name?", "Who am I?", "Do you remember my name?", "what is my name")


def finished(item: Item) -> Chat:
    """The item with its answer, as turns of a conversation."""
    return [*item.messages, {"role": "assistant", "content": item.answer}]


def unrelated(rng: random.Random, split: Split) -> Item:
    """A question that needs no earlier turn."""
    return draw(rng.choice((glossary, arithmetic, copying, offtopic)), rng, split)


def follow_up(rng: random.Random, split: Split) -> Item:
    """A last turn that needs the turn before it."""
    kind = rng.choices(("repeat", "shorter", "louder"), (40, 35, 25))[0]
    base = draw(rng.choice((arithmetic, copying, definition)) if kind == "repeat" else definition, rng, split)
    if kind == "repeat":
        question, answer = rng.choice(REPEAT), base.answer
    elif kind == "shorter":
        question = rng.choice(SHORTER)
        answer = next(term.brief for term in load_terms() if term.answer == base.answer)
    else:
        question, answer = rng.choice(LOUDER), base.answer.upper()
    return Item("turns", [*finished(base), *user(question)], answer, base.key)


def introduction(rng: random.Random, split: Split) -> Item:
    """The user gives a name and asks for it later, directly or after another turn."""
    name = w.pick(rng, "names") if rng.random() < 0.5 else w.invented_word(rng).capitalize()
    key = f"name|{name}"
    if split_of(key) != split:
        return introduction(rng, split)
    reply = {"role": "assistant", "content": HELLO.replace("!", f" {name}!")}
    hello = [*user(rng.choice(MY_NAME).format(x=name)), reply]
    interlude = finished(unrelated(rng, split)) if rng.random() < 0.5 else []
    return Item("turns", [*hello, *interlude, *user(rng.choice(ASK_NAME))], f"Your name is {name}.", key)


def greeting(rng: random.Random) -> Item:
    """The first turn of an introduction, as an item of its own."""
    name = w.pick(rng, "names") if rng.random() < 0.5 else w.invented_word(rng).capitalize()
    question = rng.choice(MY_NAME).format(x=name)
    return Item("turns", user(question), HELLO.replace("!", f" {name}!"), f"name|{name}")


def turns(rng: random.Random, split: Split) -> Item:
    roll = rng.random()
    if roll < 0.05:
        return draw(greeting, rng, split)
    if roll < 0.20:
        last = introduction(rng, split)
    elif roll < 0.55:
        last = follow_up(rng, split)
    else:
        last = unrelated(rng, split)
    before = [] if roll < 0.55 and rng.random() < 0.6 else finished(unrelated(rng, split))
    if rng.random() < 0.25:
        before = [*finished(unrelated(rng, split)), *before]
    return Item("turns", [*before, *last.messages], last.answer, last.key)
