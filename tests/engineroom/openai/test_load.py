"""The server under too many requests, clients that leave, a failed step, and a signal: no request is lost or left."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from engineroom import load
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit import process
from engineroom.kit.process import Server
from engineroom.load.client import session as session_of
from engineroom.metrics.prometheus import parse
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.openai.conftest import CACHE_TOKENS, Start, numbers, scrape

BODY = {"model": "course", "prompt": [300, 301, 302], "ignore_eos": True, "temperature": 0}


def settled(server: Server) -> dict[str, float]:
    """The metrics once no request runs or waits and no block is in use, or after a minute."""
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    eventually(lambda: not any(scrape(server)[name] for name in names))
    return scrape(server)


def test_clients_that_leave_take_their_requests_with_them(server: Server) -> None:
    """32 requests at once on six slots.

    16 clients stay. Eight leave their streams after the first token. Eight without a stream leave when any stream gets
    its first token; most of their requests wait then, and some run.
    """
    before = scrape(server)
    first_token = asyncio.Event()

    async def stay(http: httpx.AsyncClient, stream: bool) -> str:
        return (await http.post("/v1/completions", json=BODY | {"max_tokens": 40, "stream": stream})).text

    async def leave_stream(http: httpx.AsyncClient) -> None:
        body = BODY | {"max_tokens": 200, "stream": True}
        async with http.stream("POST", "/v1/completions", json=body) as response:
            await anext(response.aiter_lines())
            first_token.set()

    async def leave_without_stream(http: httpx.AsyncClient) -> None:
        post = asyncio.create_task(http.post("/v1/completions", json=BODY | {"max_tokens": 200}))
        await first_token.wait()
        post.cancel()
        await asyncio.gather(post, return_exceptions=True)

    async def all_clients() -> list[str | None]:
        async with session_of(server) as http:
            clients = [
                client
                for index in range(8)
                for client in (
                    leave_stream(http),
                    leave_without_stream(http),
                    stay(http, index % 2 > 0),
                    stay(http, index % 2 == 0),
                )
            ]
            return await asyncio.gather(*clients)

    responses = asyncio.run(all_clients())
    assert len([response for response in responses if response]) == 16
    after = settled(server)
    change = {name: value - before.get(name, 0) for name, value in after.items()}
    assert (after["num_requests_running"], after["num_requests_waiting"]) == (0, 0)
    assert after["kv_cache_usage_perc"] == 0
    num_finished = change["length"]  # some of them just when their client left
    assert 16 <= num_finished <= 32 - change["abort"] and change["abort"] > 8
    assert change["e2e_request_latency_seconds_count"] == num_finished
    num_started = change["time_to_first_token_seconds_count"]
    num_tokens = change["generation_tokens_total"]
    assert num_finished <= num_started <= 32
    assert change["inter_token_latency_seconds_count"] == num_tokens - num_started
    assert change["request_queue_time_seconds_count"] == num_started
    assert change["prompt_tokens_total"] == 3 * num_started


def test_requests_beyond_the_queue_are_refused_and_the_server_lives(start: Start) -> None:
    with start(name="crowded", max_queue_size=2) as server:
        prompts = {"prompt": [BODY["prompt"]] * 9, "max_tokens": 4}  # all in one turn of its event loop
        response = httpx.post(f"{server.url}/v1/completions", json=BODY | prompts, trust_env=False)
        assert response.status_code == 429 and response.headers["Retry-After"] == "1"
        error = response.json()["error"]
        assert error["code"] == "queue_full"
        assert "6 requests may run and 2 wait (max_queue_size)" in error["message"]
        assert settled(server)["kv_cache_usage_perc"] == 0
        assert load.openai_client(server).completions.create(max_tokens=4, model="course", prompt="A").choices


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_before_its_work_is_done(start: Start, signal_number: signal.Signals) -> None:
    """Short answers finish in time. Long ones would take 10,000 steps: they and the waiting requests get an error."""
    with start(name="signalled") as server:

        async def under_load() -> list[load.Trace]:
            short = asyncio.create_task(load.fire(server, [BODY["prompt"]] * 4, 20, ignore_eos=True))
            while (await asyncio.to_thread(scrape, server)).get("length", 0) < 4:
                await asyncio.sleep(0.02)
            long = asyncio.create_task(load.fire(server, [BODY["prompt"]] * 240, 250, ignore_eos=True))
            while (await asyncio.to_thread(scrape, server))["num_requests_waiting"] < 200:
                await asyncio.sleep(0.02)
            os.kill(server.pid, signal_number)
            return await short + await long

        traces = asyncio.run(under_load())
        assert eventually(lambda: not server.alive())
        assert [len(trace.arrivals) for trace in traces[:4]] == [20] * 4
        failed = [trace for trace in traces if trace.error]
        assert len(failed) > 120 and all("the engine was shut down" in trace.error for trace in failed)
        assert all(len(trace.arrivals) in (20, 250) for trace in traces if not trace.error)
        assert "Traceback" not in server.logs(200)


def test_it_ends_by_sigterm_where_sigint_is_ignored(engine: EngineDir) -> None:
    command = [sys.executable, "-m", "engineroom.openai", str(engine.path), "--port", "{port}"]
    command += ["--max_tokens_in_paged_kv_cache", str(CACHE_TOKENS)]
    with process.start(with_sigint(signal.SIG_IGN, command), name="deaf engine") as server:
        os.kill(server.pid, signal.SIGTERM)
        assert eventually(lambda: not server.alive())


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
