"""The app over an engine under too many requests, with a failed step, and its metrics: nothing is lost or left."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.metrics.prometheus import parse
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from tests.engineroom.openai.conftest import CACHE_TOKENS, numbers

BODY = {"model": "course", "prompt": [300, 301, 302], "ignore_eos": True, "temperature": 0}


@pytest.fixture
def executor(engine: EngineDir) -> Iterator[AsyncExecutor]:
    executor = AsyncExecutor(Executor(engine, KvCacheConfig(max_tokens=CACHE_TOKENS)), max_queue_size=4)
    yield executor
    executor.close()


class GatedExecutor(Executor):
    """Computes one step for each permit in `permits`, and waits while there is none."""

    def __init__(self, engine: EngineDir, kv_cache_config: KvCacheConfig) -> None:
        super().__init__(engine, kv_cache_config)
        self.permits = threading.Semaphore(0)

    def step(self) -> list[tuple[Request, TokenOutput]]:
        if self.scheduler.has_requests:
            self.permits.acquire()
        return super().step()

    def open_gate(self) -> None:
        self.permits.release(1_000_000)


@pytest.fixture
def gated(engine: EngineDir) -> GatedExecutor:
    return GatedExecutor(engine, KvCacheConfig(max_tokens=CACHE_TOKENS))


@pytest.fixture
def gated_loop(gated: GatedExecutor) -> Iterator[AsyncExecutor]:
    loop = AsyncExecutor(gated, max_queue_size=4)
    yield loop
    gated.open_gate()
    loop.close()


@pytest.fixture
def app(executor: AsyncExecutor, vocabulary: Vocabulary) -> FastAPI:
    return create_app(executor, vocabulary, "course", 256)


def session(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://engine")


class SlowExecutor(Executor):
    """Each step holds the GIL for a millisecond more, as the steps of a larger model do."""

    def step(self) -> list[tuple[Request, TokenOutput]]:
        outputs = super().step()
        ctypes.PyDLL(None).usleep(1000)
        return outputs


def test_tokens_of_a_stream_come_one_by_one(engine: EngineDir) -> None:
    """A step on a CPU holds the GIL; the event loop runs after most steps, not only after every tenth.

    Another program may take the core from it for a while, but not during every one of the streams.
    """
    executor = AsyncExecutor(SlowExecutor(engine, KvCacheConfig(max_tokens=CACHE_TOKENS)))

    async def num_turns() -> int:
        """How many different steps the event loop saw while it read 200 tokens."""
        outputs = executor.generate(BODY["prompt"], SamplingParams(max_tokens=200))
        return len({executor.executor.num_steps async for _ in outputs})

    assert any(asyncio.run(num_turns()) > 120 for _ in range(20))
    executor.close()


def test_overload_is_refused(gated: GatedExecutor, gated_loop: AsyncExecutor, vocabulary: Vocabulary) -> None:
    """40 requests before the first step: six run, four wait and 30 are refused, and then the engine goes on."""
    refusals: list[str] = []

    async def completion_tokens(http: httpx.AsyncClient) -> int:
        response = await http.post("/v1/completions", json=BODY | {"max_tokens": 100})
        if response.status_code == 200:
            return response.json()["usage"]["completion_tokens"]
        assert response.status_code == 429 and response.headers["Retry-After"] == "1"
        refusals.append(response.json()["error"]["message"])
        if len(refusals) == 30:
            gated.open_gate()
        return 0

    async def all_requests() -> list[int]:
        async with session(create_app(gated_loop, vocabulary, "course", 256)) as http:
            requests = [completion_tokens(http) for _ in range(40)]
            return await asyncio.wait_for(asyncio.gather(*requests), 60)

    assert sorted(asyncio.run(all_requests())) == [0] * 30 + [100] * 10
    assert all("6 requests may run and 4 wait (max_queue_size)" in message for message in refusals)
    assert gated.block_manager.num_free_blocks == gated.block_manager.num_blocks


def test_the_garbage_collector_ignores_what_was_loaded_at_the_start(app: FastAPI) -> None:
    with TestClient(app):
        assert gc.get_freeze_count() > 100_000
    assert gc.get_freeze_count() == 0


def test_a_failed_step_and_a_stopped_engine_are_reported(
    app: FastAPI, executor: AsyncExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with session(app) as http:

            async def status(**changes: object) -> tuple[int, int, str]:
                """(status of a completion, status of /health after it, body of the completion)."""
                response = await http.post("/v1/completions", json=BODY | {"max_tokens": 5} | changes)
                return response.status_code, (await http.get("/health")).status_code, response.text

            assert (await status())[:2] == (200, 200)
            with monkeypatch.context() as patch:
                patch.setattr(executor.executor.model_runner, "run_generation", None)
                code, health, text = await status()
                assert (code, health) == (500, 503) and "the engine failed: TypeError" in text
                code, health, text = await status(stream=True)  # the context step gave the first token
                assert (code, health) == (200, 503) and "the engine failed: TypeError" in text.split("\n\n")[
                    1
                ]
            assert (await status())[:2] == (200, 200)
            executor.close()
            code, health, text = await status()
            assert (code, health) == (503, 503) and "the engine was shut down" in text

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_metrics_count_requests_and_tokens(app: FastAPI) -> None:
    async def scenario() -> dict[str, float]:
        async with session(app) as http:
            bodies = [BODY | {"max_tokens": n, "stream": bool(n % 2)} for n in range(1, 7)]
            bodies += [
                BODY | {"prompt": [[5] * 40, [6] * 40], "max_tokens": 4},
                BODY | {"max_tokens": 10_000},
            ]
            bodies += [
                BODY | {"prompt": [7] * 40, "max_tokens": 4, "stop": "e", "temperature": 1.5, "seed": 5}
            ]
            responses = [await http.post("/v1/completions", json=body) for body in bodies]
            assert [response.status_code for response in responses] == [200] * 7 + [400, 200]
            repeated = (await http.post("/v1/completions", json=bodies[6])).json()
            assert repeated["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
            return numbers(parse((await http.get("/metrics")).text))

    metrics = asyncio.run(asyncio.wait_for(scenario(), 60))
    for name in ("time_to_first_token", "request_queue_time", "e2e_request_latency"):
        assert metrics[f"{name}_seconds_count"] == 6 + 2 + 1 + 2
    assert (
        metrics["length"] + metrics.get("stop", 0) == 11 and "abort" not in metrics and "error" not in metrics
    )
    assert metrics["prompt_tokens_total"] == metrics["prefix_cache_queries_total"] == 6 * 3 + 5 * 40
    assert metrics["prefix_cache_hits_total"] == 64
    assert metrics["inter_token_latency_seconds_count"] == metrics["generation_tokens_total"] - 11
    names = ("request_queue_time", "time_to_first_token", "e2e_request_latency")
    queue_time, ttft, e2e_latency = (metrics[f"{name}_seconds_sum"] for name in names)
    assert 0 < queue_time <= ttft <= e2e_latency
    assert metrics["kv_cache_usage_perc"] == 0


def test_a_waiting_request_records_once_when_it_starts_and_what_it_reuses(engine: EngineDir) -> None:
    """Twelve blocks: the first request takes eight, so the second waits, and looks its prefix up at every step."""
    executor = Executor(engine, KvCacheConfig(max_tokens=192))
    executor.generate([[5] * 40], SamplingParams(max_tokens=1))
    first = Request([9] * 20, SamplingParams(max_tokens=100))
    second = Request([5] * 40, SamplingParams(max_tokens=60))
    executor.scheduler.add(first)
    executor.scheduler.add(second)
    scheduled_times: list[float | None] = []  # of the second request, after each step
    clock: list[float] = []
    while executor.scheduler.has_requests:
        clock.append(time.perf_counter())
        executor.step()
        scheduled_times.append(second.first_scheduled_time)
    assert scheduled_times[:100] == [None] * 100
    assert set(scheduled_times[100:]) == {second.first_scheduled_time}
    assert second.num_cached_tokens == executor.block_manager.num_reused_tokens == 32
    assert first.num_cached_tokens == 0
    assert first.arrival_time <= second.arrival_time <= clock[0]  # clock: readings in their order
    assert clock[0] <= first.first_scheduled_time <= clock[1]  # clock: likewise
    assert clock[100] <= second.first_scheduled_time <= clock[101]  # clock: likewise


def test_a_stream_that_is_closed_costs_no_more_steps(gated: GatedExecutor, gated_loop: AsyncExecutor) -> None:
    async def read_three_tokens() -> None:
        gated.permits.release(3)
        outputs = gated_loop.generate([5] * 40, SamplingParams(max_tokens=200))
        for _ in range(3):
            await anext(outputs)
        await outputs.aclose()
        gated.open_gate()
        while gated_loop.stats().num_running_requests:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(read_three_tokens(), 60))
    assert gated.num_steps == 3 and gated_loop.stats().kv_cache_usage == 0
