"""What learners write as `leave` and `roll_out`, right and wrong, on a real Triton: the check names what happened."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from engineroom.engine.directory import EngineDir
from engineroom.kit.files import write_atomic
from engineroom.triton import rollout
from engineroom.triton.deployment import describe
from engineroom.triton.render import CONFIG, render
from engineroom.triton.server import Triton
from labs.deploy_with_triton import attempts
from labs.deploy_with_triton import requests as lesson
from labs.deploy_with_triton.attempts import Departure, LongAnswer, RollOut
from labs.kit.check import CheckResult, check
from tests.engineroom.triton.conftest import SETTINGS, StartTriton
from tests.labs.lessons.answers_10 import CONFIG_IN_BLOCKS

MODEL, MAX_TOKENS = "tensorrt_llm", 200
ANSWER: dict[str, Any] = {"input_ids": [300, 301], "input_lengths": 2, "streaming": True}


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def shelf(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(describe(engine_dir=engine.path, **SETTINGS), tmp_path_factory.mktemp("shelf") / "all")


@pytest.fixture(scope="module")
def served(shelf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the one model that is served."""
    return Path(shutil.copytree(shelf / MODEL, tmp_path_factory.mktemp("attempts") / "repository" / MODEL))


@pytest.fixture(scope="module")
def own_triton(start_triton: StartTriton, served: Path) -> Iterator[Triton]:
    with start_triton(served.parent) as triton:
        yield triton


def reading(
    triton: Triton, action: Callable[[LongAnswer, Callable[[], int]], Awaitable[object]]
) -> Departure:
    async def run() -> Departure:
        async with InferenceServerClient(triton.grpc) as client:
            return await attempts.try_leave(
                lambda answers: action(answers, lambda: lesson.engine_steps(triton)),
                lambda: lesson.stream_infer(client, MODEL, request_output_len=MAX_TOKENS, **ANSWER),
                triton,
            )

    return asyncio.run(run())


def verdict(departure: Departure) -> CheckResult:
    return check("10.cancel", lambda: "leave", departure, MAX_TOKENS)


async def read(answers: LongAnswer, count: int = 10) -> int:
    async for _ in answers:
        if answers.num_responses == count:
            break
    return answers.num_responses


async def leave(answers: LongAnswer, steps: Callable[[], int]) -> dict[str, int]:
    before, received = steps(), await read(answers)
    answers.cancel()
    await asyncio.sleep(0.5)
    stopped = steps()
    await asyncio.sleep(0.5)
    return {"before": before, "received": received, "stopped": stopped, "later": steps()}


async def leave_by_cancelling_the_reader(answers: LongAnswer, steps: Callable[[], int]) -> dict[str, int]:
    before = steps()
    reader = asyncio.create_task(read(answers, MAX_TOKENS))
    while answers.num_responses < 10:
        await asyncio.sleep(0)
    reader.cancel()
    await asyncio.sleep(0.5)
    return {"before": before, "received": answers.num_responses, "stopped": steps(), "later": steps()}


async def forget_to_cancel(answers: LongAnswer, steps: Callable[[], int]) -> dict[str, int]:
    before, received = steps(), await read(answers)
    return {"before": before, "received": received, "stopped": steps() + 1, "later": steps() + 1}


async def read_to_the_end(answers: LongAnswer, steps: Callable[[], int]) -> dict[str, int]:
    return {
        "before": steps(),
        "received": await read(answers, 10 * MAX_TOKENS),
        "stopped": steps(),
        "later": steps(),
    }


@pytest.mark.parametrize("action", [leave, leave_by_cancelling_the_reader])
def test_a_reader_who_cancels_passes(own_triton: Triton, action: Any) -> None:
    result = verdict(reading(own_triton, action))
    assert result, result


def test_a_forgotten_cancel_is_named_and_the_next_attempt_is_not_disturbed(own_triton: Triton) -> None:
    departure = reading(own_triton, forget_to_cancel)
    assert not departure.cancelled
    assert "Leaving the loop cancels nothing" in str(verdict(departure))
    result = verdict(reading(own_triton, leave))
    assert result, result


def test_the_whole_answer_is_not_an_early_departure(own_triton: Triton) -> None:
    departure = reading(own_triton, read_to_the_end)
    assert departure.read_to_end and "that is the whole answer" in str(verdict(departure))


def test_a_call_that_never_returns_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait_for_ever(answers: object) -> None:
        await asyncio.Event().wait()

    def never_await(answers: object) -> None:
        while True:
            pass

    monkeypatch.setattr(attempts, "BLOCKED_SECONDS", 0.1)
    for function in (wait_for_ever, never_await):
        assert asyncio.run(attempts.run(function, None, seconds=0.1)).timed_out


def test_errors_and_forgotten_awaits_are_noted() -> None:
    async def fail() -> None:
        raise KeyError("served")

    async def forget() -> int:
        asyncio.sleep(1)  # type: ignore[unused-coroutine]
        return 4

    async def time_out() -> None:
        raise TimeoutError

    assert isinstance(asyncio.run(attempts.run(fail)).error, KeyError)
    outcome = asyncio.run(attempts.run(forget))
    assert (outcome.value, outcome.not_awaited) == (4, ["sleep"])
    outcome = asyncio.run(attempts.run(time_out))
    assert isinstance(outcome.error, TimeoutError) and not outcome.timed_out


def rolling_out(
    triton: Triton, shelf: Path, served: Path, engine_dir: Path, roll_out: Callable[..., Awaitable[object]]
) -> tuple[RollOut, CheckResult]:
    """One attempt after version 1 is restored, and its verdict. Both engines have the same weights."""

    async def run() -> tuple[RollOut, CheckResult]:
        async with InferenceServerClient(triton.grpc) as client:
            shutil.rmtree(served)
            shutil.copytree(shelf / MODEL, served)
            await client.load_model(MODEL, client_timeout=120)

            async def ask() -> lesson.TritonResponse:
                return await lesson.infer(client, MODEL, request_output_len=8, **ANSWER)

            attempt = await attempts.try_roll_out(
                lambda engine_dir: roll_out(engine_dir, client, served), engine_dir, triton, served, ask
            )
            return attempt, check("10.rollout", roll_out, attempt, str(engine_dir), [0])

    return asyncio.run(run())


def prepare(engine_dir: Path, served: Path) -> None:
    shutil.copytree(served / "1", served / "2")
    write_atomic(served / CONFIG, rollout.replace_engine((served / CONFIG).read_text(), engine_dir))


async def wait_until_drained(client: InferenceServerClient) -> None:
    while (await lesson.model_versions(client, MODEL)).get("1") not in (None, "UNAVAILABLE"):
        await asyncio.sleep(0.05)


async def roll_out(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    prepare(engine_dir, served)
    await client.load_model(MODEL)
    await wait_until_drained(client)


async def load_in_the_background(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    """Another sound way to wait for the new version: by its state."""
    prepare(engine_dir, served)
    loading = asyncio.create_task(client.load_model(MODEL))
    while (await lesson.model_versions(client, MODEL)).get("2") != "READY":
        await asyncio.sleep(0.05)
    await loading
    await wait_until_drained(client)


async def remove_the_old_folder(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    """A third way: Triton is asked whether the version is ready, and the old folder is removed at the end."""
    prepare(engine_dir, served)
    await client.load_model(MODEL, client_timeout=100)
    assert await client.is_model_ready(MODEL, "2")
    await wait_until_drained(client)
    shutil.rmtree(served / "1")


async def forget_to_await(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    prepare(engine_dir, served)
    client.load_model(MODEL)  # type: ignore[unused-coroutine]


async def forget_to_load(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    prepare(engine_dir, served)


async def replace_in_place(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    write_atomic(served / CONFIG, rollout.replace_engine((served / CONFIG).read_text(), engine_dir))
    await client.load_model(MODEL)


async def unload_first(engine_dir: Path, client: InferenceServerClient, served: Path) -> None:
    await client.unload_model(MODEL)
    prepare(engine_dir, served)
    await client.load_model(MODEL)
    await wait_until_drained(client)


ROLL_OUTS: list[tuple[Callable[..., Awaitable[object]], str]] = [
    (roll_out, "PASSED"),
    (forget_to_await, "calls `load_model` without `await`"),
    (load_in_the_background, "PASSED"),
    (forget_to_load, "The folder `2` is there, but"),
    (replace_in_place, "without a folder `2`"),
    (unload_first, "requests failed"),
    (remove_the_old_folder, "PASSED"),
]


@pytest.mark.parametrize(("action", "hint"), ROLL_OUTS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_roll_out_is_judged_by_what_it_did(
    own_triton: Triton, shelf: Path, served: Path, engine: EngineDir, action: Any, hint: str, tmp_path: Path
) -> None:
    second = Path(shutil.copytree(engine.path, tmp_path / "second"))
    attempt, result = rolling_out(own_triton, shelf, served, second, action)
    assert hint in str(result), attempt.states


def test_a_configuration_in_another_style_is_loaded_with_its_number_of_instances(
    own_triton: Triton, served: Path
) -> None:
    folder = served.parent / "in_order"
    (folder / "1").mkdir(parents=True)
    shutil.copy(Path(lesson.__file__).with_name("in_order.py"), folder / "1" / "model.py")

    async def load(count: int) -> int:
        (folder / CONFIG).write_text(
            lesson.with_instances(CONFIG_IN_BLOCKS, count) if count > 1 else CONFIG_IN_BLOCKS
        )
        async with InferenceServerClient(own_triton.grpc) as client:
            await client.load_model("in_order", client_timeout=120)
            num_instances = await lesson.num_instances(client, "in_order")
            await lesson.unload(client, "in_order")
            assert await lesson.model_versions(client, "in_order") == {"1": "UNAVAILABLE"}
            return num_instances

    assert [asyncio.run(load(count)) for count in (1, 2)] == [1, 2]
    shutil.rmtree(folder)
