"""The generator is deterministic, keeps test items out of training, and gives only correct answers."""

from __future__ import annotations

import random
import re
from itertools import islice

import pytest

from engineroom.quality.data import TASKS, Item, held_out_items, training_items
from engineroom.quality.data.arithmetic_task import BEYOND
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.item import UNKNOWN, draw, render, split_of
from engineroom.quality.data.mix import SHARES
from engineroom.quality.data.offtopic_task import offtopic

SAMPLE = 4000


@pytest.fixture(scope="module")
def training() -> list[Item]:
    return list(islice(training_items(99), SAMPLE))


def test_same_seed_same_items(training: list[Item]) -> None:
    assert training[:300] == list(islice(training_items(99), 300))
    assert training[:300] != list(islice(training_items(98), 300))
    assert held_out_items("look-up", 5) == held_out_items("look-up", 5)


def test_shares_cover_the_tasks(training: list[Item]) -> None:
    assert SHARES.keys() == TASKS.keys() and sum(SHARES.values()) == pytest.approx(1)
    assert {item.task for item in training} == TASKS.keys()


@pytest.mark.parametrize("task", TASKS)
def test_no_test_item_is_in_training(task: str, training: list[Item]) -> None:
    held_out = held_out_items(task, 200)
    assert len({str(item.messages) for item in held_out}) == 200
    assert all(item.task == task and split_of(item.key) == "test" for item in held_out)
    assert all(split_of(item.key) == "train" or item.task == "system turn" for item in training)
    training_pairs = {(str(item.messages), item.answer) for item in training}
    assert not training_pairs & {(str(item.messages), item.answer) for item in held_out}


def test_one_key_in_ten_is_held_out() -> None:
    share = sum(split_of(f"key {i}") == "test" for i in range(5000)) / 5000
    assert share == pytest.approx(0.1, abs=0.02)
    assert split_of(None) == "train"


def test_arithmetic_is_right(training: list[Item]) -> None:
    answers = [item.answer for item in training if item.task == "arithmetic" and item.answer != BEYOND]
    assert len(answers) > 500
    for answer in answers:
        match = re.fullmatch(r"(\d+) ([-+x/]) (\d+) = (-?\d+)(?: remainder (\d+))?", answer)
        assert match, answer
        a, b, result, remainder = (int(match[group] or 0) for group in (1, 3, 4, 5))
        correct = {
            "+": a + b == result,
            "-": a - b == result,
            "x": a * b == result,
            "/": a == b * result + remainder,
        }
        assert correct[match[2]] and remainder < max(b, 1), answer


def test_looked_up_values_are_in_the_context(training: list[Item]) -> None:
    for item in training:
        if item.task != "look-up":
            continue
        context = " ".join(message["content"] for message in item.messages)
        assert item.answer in context or item.answer.startswith("There is no ")


def test_off_topic_questions_never_ask_for_a_term() -> None:
    rng = random.Random(7)
    items = [offtopic(rng) for _ in range(20_000)]
    subjects = {item.key.removeprefix("offtopic|") for item in items if item.answer == UNKNOWN}
    assert len(subjects) > 5000
    assert not subjects & {name.lower() for term in load_terms() for name in term.names}


def test_a_task_that_does_not_exist_is_named() -> None:
    with pytest.raises(KeyError, match="no task 'poetry'; the tasks are glossary"):
        held_out_items("poetry", 1)


def test_draw_gives_up_instead_of_looping() -> None:
    item = held_out_items("copying", 1)[0]
    with pytest.raises(RuntimeError, match="no item of the train split"):
        draw(lambda rng: item, random.Random(), "train")


def test_messages_alternate_and_end_with_the_user(training: list[Item]) -> None:
    for item in training[:1000]:
        roles = [message["role"] for message in item.messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert item.messages[0]["role"] in ("system", "user")
        assert render(item.messages, item.answer).count("<|end|>") == len(item.messages) + 1
