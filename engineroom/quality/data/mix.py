"""The tasks, in the proportions that training uses, and the test items of each task."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from engineroom.quality.data.arithmetic_task import arithmetic, counting
from engineroom.quality.data.copy_task import copying
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.glossary_task import glossary
from engineroom.quality.data.item import Item, ItemGenerator, Split, draw
from engineroom.quality.data.lookup_task import lookup
from engineroom.quality.data.offtopic_task import offtopic
from engineroom.quality.data.system_task import system_turn
from engineroom.quality.data.turns_task import turns

SplitGenerator = Callable[[random.Random, Split], Item]


def by_split(generate: ItemGenerator) -> SplitGenerator:
    """A generator of items of a given split, for a task whose items do not contain items of other tasks."""
    return lambda rng, split: draw(generate, rng, split)


TASKS: dict[str, SplitGenerator] = {
    "glossary": by_split(glossary),
    "arithmetic": by_split(arithmetic),
    "copying": by_split(copying),
    "look-up": by_split(lookup),
    "system turn": system_turn,
    "turns": turns,
    "off-topic": by_split(offtopic),
    "counting": by_split(counting),
}
SHARES = {
    "glossary": 0.23,
    "arithmetic": 0.24,
    "copying": 0.11,
    "look-up": 0.13,
    "system turn": 0.13,
    "turns": 0.08,
    "off-topic": 0.06,
    "counting": 0.02,
}


def training_items(seed: int) -> Iterator[Item]:
    """An endless stream of training items; the same seed gives the same stream."""
    rng = random.Random(seed)
    names, weights = list(SHARES), list(SHARES.values())
    while True:
        yield TASKS[rng.choices(names, weights)[0]](rng, "train")


def held_out_items(task: str, count: int, seed: int = 0) -> list[Item]:
    """`count` different test items of one task. Raises KeyError for a task that does not exist."""
    if task not in TASKS:
        raise KeyError(f"no task {task!r}; the tasks are {', '.join(TASKS)}")
    rng = random.Random(f"{task}/{seed}")
    items: dict[str, Item] = {}
    while len(items) < count:
        item = TASKS[task](rng, "test")
        items.setdefault(str(item.messages), item)
    return list(items.values())


def document(rng: random.Random) -> str:
    """Plain glossary lines without chat markers, for raw completions: `Name (other name): text`."""
    return "\n".join(term.answer for term in rng.sample(load_terms(), rng.randint(1, 4)))
