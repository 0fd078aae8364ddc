"""Lesson 00's open challenge, judged with the course model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from labs.kit.challenge import ChallengeResult
from labs.preflight import Answerer
from labs.preflight.challenge import CHALLENGE, RequestBuilder, judge


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    return Answerer()


def judged(answerer: Answerer, build_request: RequestBuilder) -> ChallengeResult:
    return asyncio.run(judge(answerer, build_request))


def brief(term: str) -> dict[str, Any]:
    return {"question": term, "system": "Be brief."}


def test_a_short_answer_reaches_the_bar_and_raises_it(answerer: Answerer) -> None:
    result = judged(answerer, brief)
    assert result and result.gain > 1.2
    assert CHALLENGE.bar() > result.gain
    assert not judged(answerer, brief)


def test_the_baseline_is_no_progress(answerer: Answerer) -> None:
    result = judged(answerer, lambda term: {"question": f"What is {term}?"})
    assert not result and result.gain == 1


@pytest.mark.parametrize(
    ("build_request", "message"),
    [
        (lambda term: {"question": term, "max_new_tokens": 9}, "10 of 10 answers lack"),
        (lambda term: {"question": "TTFT"}, "answers lack the first sentence"),
        (lambda term: None, "raised TypeError"),
        (lambda term: {"prompt": term}, "raised TypeError"),
        (lambda term: {"question": term}["system"], "raised KeyError"),
    ],
)
def test_worse_answers_and_errors_are_named(
    answerer: Answerer, build_request: RequestBuilder, message: str
) -> None:
    result = judged(answerer, build_request)
    assert not result and message in str(result)
