"""Lesson 04's open challenge, judged with the course model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from engineroom import checkpoint
from engineroom.checkpoint import Checkpoint
from engineroom.vllm.model import local_folder
from labs.convert_checkpoint.challenge import CHALLENGE, FAULTS, HARMLESS, Inspector, Probe, judge
from labs.kit.challenge import ChallengeResult

TOLERANCE = 0.05


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("challenge") / "checkpoint"
    return checkpoint.open_checkpoint(checkpoint.convert(local_folder("course"), folder, dtype="float32"))


def differ(*token_ids: int) -> Inspector:
    def inspect(reference: Probe, suspect: Probe) -> bool:
        difference = reference.logits(list(token_ids)) - suspect.logits(list(token_ids))
        return bool(difference.abs().max() > TOLERANCE)

    return inspect


def judged(converted: Checkpoint, inspect: Inspector) -> ChallengeResult:
    return asyncio.run(judge(converted, inspect))


def test_a_short_probe_finds_every_fault_and_raises_the_bar(converted: Checkpoint) -> None:
    long, short = judged(converted, differ(*range(4000, 4008))), judged(converted, differ(*range(4000, 4004)))
    assert long and short and short.gain == 2 * long.gain
    assert not judged(converted, differ(*range(4000, 4004)))


@pytest.mark.parametrize(
    ("inspect", "message"),
    [
        (differ(4000), "another rotary base"),  # a single token has no distance
        (differ(*range(300, 304)), "embeddings shifted"),  # the lower half of the vocabulary
        (lambda reference, suspect: True, f"Wrong about {len(HARMLESS)}"),
        (lambda reference, suspect: False, f"Wrong about {len(FAULTS)}"),
        (lambda reference, suspect: None, "`is_faulty` returned None: return True"),
        (lambda reference, suspect: ..., "`is_faulty` returned Ellipsis: return True"),
        (lambda reference, suspect: suspect.weights, "AttributeError"),
        (
            lambda reference, suspect: torch.equal(*(m.logits([4000, 9]) for m in (reference, suspect))),
            "Wrong",
        ),
    ],
)
def test_a_fault_missed_and_a_false_alarm_are_named(
    converted: Checkpoint, inspect: Inspector, message: str
) -> None:
    result = judged(converted, inspect)
    assert not result and message in str(result)
    assert CHALLENGE.bar() == CHALLENGE.first_bar
