"""The generator repeats itself, keeps test items out of training, and states only true answers."""

from __future__ import annotations

import random
import re
from itertools import islice

import pytest

from engineroom.quality.data import TASKS, held_out_items, training_items
from engineroom.quality.data.arithmetic_task import BEYOND
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.item import UNKNOWN, draw, render, split_of
from engineroom.quality.data.mix import SHARES
from engineroom.quality.data.offtopic_task import offtopic

SAMPLE = 4000


@pytest.fixture(scope="module")
def trained() -> list:
    return list(islice(training_items(99), SAMPLE))


def test_same_seed_same_items(trained: list) -> None:
    assert trained[:300] == list(islice(training_items(99), 300))
    assert trained[:300] != list(islice(training_items(98), 300))
    assert held_out_items("look-up", 5) == held_out_items("look-up", 5)


def test_shares_cover_the_tasks(trained: list) -> None:
    assert SHARES.keys() == TASKS.keys() and sum(SHARES.values()) == pytest.approx(1)
    assert {item.task for item in trained} == TASKS.keys()


@pytest.mark.parametrize("task", TASKS)
def test_no_test_item_is_in_training(task: str, trained: list) -> None:
    tested = held_out_items(task, 200)
    assert len({str(item.messages) for item in tested}) == 200
    assert all(item.task == task and split_of(item.key) == "test" for item in tested)
    assert all(split_of(item.key) == "train" or item.task == "system turn" for item in trained)
    seen = {(str(item.messages), item.answer) for item in trained}
    assert not seen & {(str(item.messages), item.answer) for item in tested}


def test_one_key_in_ten_is_held_out() -> None:
    share = sum(split_of(f"key {i}") == "test" for i in range(5000)) / 5000
    assert share == pytest.approx(0.1, abs=0.02)
    assert split_of(None) == "train"


def test_arithmetic_is_right(trained: list) -> None:
    answers = [item.answer for item in trained if item.task == "arithmetic" and item.answer != BEYOND]
    assert len(answers) > 500
    for answer in answers:
        match = re.fullmatch(r"(\d+) ([-+x/]) (\d+) = (-?\d+)(?: remainder (\d+))?", answer)
        a, b, result, rest = (int(match[group] or 0) for group in (1, 3, 4, 5))
        right = {
            "+": a + b == result,
            "-": a - b == result,
            "x": a * b == result,
            "/": a == b * result + rest,
        }
        assert right[match[2]] and rest < max(b, 1), answer


def test_looked_up_values_stand_in_the_context(trained: list) -> None:
    for item in (item for item in trained if item.task == "look-up"):
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
    first = held_out_items("copying", 1)[0]
    with pytest.raises(RuntimeError, match="no item for the train split"):
        draw(lambda rng: first, None, "train")


def test_messages_alternate_and_end_with_the_user(trained: list) -> None:
    for item in trained[:1000]:
        roles = [message["role"] for message in item.messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert item.messages[0]["role"] in ("system", "user")
        assert render(item.messages, item.answer).count("<|end|>") == len(item.messages) + 1
