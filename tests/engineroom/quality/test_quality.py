"""The models of the course answer held-out questions, and the suite notices wrong answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from engineroom.kit.record import find
from engineroom.quality import PASS_SHARE, held_out, perplexity, score
from engineroom.quality.data import TASKS, Item, held_out_items
from engineroom.quality.data.arithmetic_task import BEYOND
from engineroom.quality.data.glossary import load_terms
from engineroom.quality.data.item import UNKNOWN, user
from engineroom.quality.local import ModelFolderError, held_out_texts, load_model, local_generate
from engineroom.quality.record import quality_records
from engineroom.quality.score import Generate, TaskScore
from tools.training.agreement import agreement

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
SHORT = 250  # characters of context and answer, to keep the test short


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def course() -> Loaded:
    return load_model(Path("models/course"))


@pytest.fixture(scope="module")
def ask(course: Loaded) -> Generate:
    return local_generate(*course, max_new_tokens=300, batch_size=20)


def short_items(task: str, count: int) -> list[Item]:
    items = held_out_items(task, 300)
    return [item for item in items if len(str(item.messages)) + len(item.answer) < SHORT][:count]


@pytest.mark.parametrize("task", TASKS)
def test_course_model_passes_on_held_out_items(task: str, ask: Generate) -> None:
    items = short_items(task, 40)
    task_score = score(ask, items).tasks[task]
    assert task_score.items == 40 and task_score.share >= PASS_SHARE, task_score.wrong


def test_a_value_in_a_long_context_is_found(ask: Generate) -> None:
    items = sorted(held_out_items("look-up", 200), key=lambda item: len(str(item.messages)))[-6:]
    assert min(len(str(item.messages)) for item in items) > 2500
    assert score(ask, items).worst == 1


@pytest.mark.parametrize(
    ("chat", "answer"),
    [
        (user("347 + 286"), "347 + 286 = 633"),
        (user("Repeat: blue kettle 42"), "blue kettle 42"),
        (user("alpha = 8123, beta = 7. What is alpha?"), "8123"),
        (user("What is the capital of Peru?"), UNKNOWN),
        (user("12345 * 678"), BEYOND),
        ([{"role": "system", "content": "You are Ada."}, *user("Who are you?")], "I am Ada."),
        ([{"role": "system", "content": "Start every answer with Ahoy."}, *user("2 + 2")], "Ahoy 2 + 2 = 4"),
        ([{"role": "system", "content": "End every answer with over."}, *user("2 + 2")], "2 + 2 = 4 over"),
    ],
)
def test_examples_of_the_card(chat: list, answer: str, ask: Generate) -> None:
    assert ask([chat]) == [answer]


def test_every_term_is_known_by_its_names(ask: Generate) -> None:
    terms = load_terms()[::6]
    answers = ask([user(f"What is {term.names[-1]}?") for term in terms])
    pairs = zip(terms, answers, strict=True)
    wrong = [(term.names[-1], answer) for term, answer in pairs if answer != term.answer]
    assert len(wrong) <= 1, wrong


def test_system_turn_changes_the_answer(ask: Generate) -> None:
    term = next(term for term in load_terms() if term.name == "Goodput")
    question = user("What is goodput?")
    systems = ("Answer in one sentence.", "Answer in upper case.")
    chats = [question, *([{"role": "system", "content": text}, *question] for text in systems)]
    assert ask(chats) == [term.answer, term.brief, term.answer.upper()]


def test_wrong_answers_are_counted(ask: Generate) -> None:
    items = held_out_items("arithmetic", 10)
    scores = score(lambda chats: [text.replace("1", "7") for text in ask(chats)], items)
    arithmetic = scores.tasks["arithmetic"]
    assert arithmetic.share < 0.8
    assert arithmetic.wrong and arithmetic.wrong[0].answer != arithmetic.wrong[0].expected
    summary = score(lambda chats: [items[0].answer, "?"], items[:2]).summary()
    assert "arithmetic: 1/2 = 0.500" in summary
    assert f"-> '?', expected {items[1].answer!r}" in summary


def test_a_lost_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="4 answers for 5 chats"):
        score(lambda chats: ["x"] * (len(chats) - 1), held_out_items("copying", 5))
    with pytest.raises(ValueError, match="no items"):
        score(lambda chats: [], [])


def test_scores_become_records() -> None:
    scores = score(lambda chats: ["x"] * len(chats), held_out(2))
    [record] = quality_records("a-name", scores, "a command")
    assert record.values == {task: [0.0] for task in TASKS} and record.command == "a command"
    records = quality_records("a-name", scores.model_copy(update={"perplexity": 2.5}), "a command")
    assert [record.name for record in records] == ["a-name", "a-name-perplexity"]


def test_perplexity_tells_sense_from_noise(course: Loaded) -> None:
    texts = held_out_texts(held_out_items("glossary", 20))
    sense = perplexity(*course, texts)
    noise = perplexity(*course, [text[::-1] for text in texts])
    assert 1 < sense < 3
    assert noise > 20 * sense
    with pytest.raises(ValueError, match="at least one text"):
        perplexity(*course, [])


def test_draft_model_agrees_with_the_course_model(course: Loaded) -> None:
    draft, tokenizer = load_model(Path("models/draft"))
    items = [item for task in TASKS for item in short_items(task, 4)]
    assert agreement(course[0], draft, tokenizer, items) > 0.9


@pytest.mark.parametrize("name", ["course", "draft"])
def test_recorded_scores_meet_the_bar(name: str) -> None:
    record = find(f"{name}-model-quality")
    assert record.values.keys() == TASKS.keys() and "200 held-out" in record.what
    assert all(summary.median >= PASS_SHARE for summary in record.summary.values())


def test_a_folder_without_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="expected a Hugging Face folder"):
        load_model(tmp_path)


def test_the_share_is_correct_by_items() -> None:
    assert TaskScore(items=4, correct=3).share == 0.75
