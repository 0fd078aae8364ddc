"""Lesson 10's open challenge, judged on a real Triton: its figure is a count of the engine's steps."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from engineroom.quality.data.item import render, user
from engineroom.triton.server import Triton
from labs.deploy_with_triton import requests as lesson
from labs.deploy_with_triton.challenge import judge
from labs.kit.challenge import ChallengeResult
from tests.labs.lessons.answers_10 import CONFIG

PROMPTS = [render(user(f"What is {term}?")) for term in ("TTFT", "goodput", "prefill", "latency") * 3]
PROGRAM = Path(lesson.__file__).with_name("in_order.py")


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


@pytest.fixture
def programs(triton: Triton, repository: Path) -> Iterator[None]:
    """The model `in_order`, and its copies `two` and `four` with as many instances."""
    configs = {"in_order": CONFIG}
    configs |= {name: lesson.with_instances(CONFIG, count) for name, count in {"two": 2, "four": 4}.items()}
    for name, config in configs.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config.replace('"in_order"', f'"{name}"'))
        shutil.copy(PROGRAM, repository / name / "1" / "model.py")

    async def each(action: str) -> None:
        async with InferenceServerClient(triton.grpc) as client:
            for name in configs:
                await getattr(client, f"{action}_model")(name)

    asyncio.run(each("load"))
    yield
    asyncio.run(each("unload"))
    for name in configs:
        shutil.rmtree(repository / name)


def test_steps_are_counted_and_processes_are_limited(triton: Triton, programs: None) -> None:
    async def judge_all() -> list[ChallengeResult]:
        async with InferenceServerClient(triton.grpc) as client:
            return [
                await judge(triton, client, name, PROMPTS) for name in ("in_order", "two", "four", "nowhere")
            ]

    in_order, two, four, nowhere = asyncio.run(judge_all())
    assert not in_order and in_order.gain < 1.2 < two.gain < 2.3
    assert not four and "has 4 instances" in str(four)
    assert not nowhere and "nowhere answered with an error" in str(nowhere)
