"""Too many requests, clients that leave, an engine that breaks, a signal in the middle: nothing is lost or left."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from labs import serving
from labs.engine.directory import EngineDir
from labs.engine.runtime.async_executor import AsyncExecutor
from labs.engine.runtime.executor import Executor, KvCacheConfig
from labs.engine.runtime.sampling import SamplingParams
from labs.engine.runtime.scheduler import Request
from labs.kit.process import Server
from labs.openai.app import create_app
from labs.openai.text import Vocabulary
from labs.serving.client import session as session_of
from tests.openai.conftest import CACHE, Start, numbers, scrape

ASK = {"model": "course", "prompt": [300, 301, 302], "ignore_eos": True, "temperature": 0}


def settled(server: Server) -> dict[str, float]:
    """Metrics when nobody runs or waits and no block is in use any more, or after a minute."""
    for _ in range(600):
        found = scrape(server)
        if not any(
            found[name] for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        ):
            break
        time.sleep(0.1)
    return found


def test_clients_that_leave_take_their_requests_with_them(server: Server) -> None:
    """32 at once on six seats, some cut off while they wait, some in the middle, with and without a stream."""
    before, draw = scrape(server), random.Random(7)
    plan = [(bool(n % 3), draw.choice([None, None, 0.02, 0.2, 0.5])) for n in range(32)]

    async def one(http: httpx.AsyncClient, stream: bool, patience: float | None) -> str | None:
        body = ASK | {"max_tokens": 40, "stream": stream}
        try:
            async with asyncio.timeout(patience):
                return (await http.post("/v1/completions", json=body)).text
        except TimeoutError:
            return None

    async def everybody() -> list[str | None]:
        async with session_of(server) as http:
            return await asyncio.gather(*(one(http, *way) for way in plan))

    answers = asyncio.run(everybody())
    left = sum(
        patience is not None and answer is None for (_, patience), answer in zip(plan, answers, strict=True)
    )
    assert left > 5 and all(
        answer for (_, patience), answer in zip(plan, answers, strict=True) if not patience
    )
    after = settled(server)
    change = {name: value - before.get(name, 0) for name, value in after.items()}
    assert (after["num_requests_running"], after["num_requests_waiting"]) == (0, 0)
    assert after["kv_cache_usage_perc"] == 0
    ended = change["length"]  # some of them in the moment when their client left
    assert 32 - left <= ended <= 32 - change["abort"]
    assert change["e2e_request_latency_seconds_count"] == ended
    first, tokens = change["time_to_first_token_seconds_count"], change["generation_tokens_total"]
    assert ended <= first <= 32 and change["inter_token_latency_seconds_count"] == tokens - first
    assert change["request_queue_time_seconds_count"] == first and change["prompt_tokens_total"] == 3 * first


def test_tokens_of_a_stream_come_one_by_one(server: Server) -> None:
    """A step on a CPU holds the GIL; the event loop gets its turn after each, not after ten."""

    def evenness() -> float:
        [trace] = asyncio.run(serving.fire(server, [ASK["prompt"]], 200, ignore_eos=True))
        gaps = [after - before for before, after in pairwise(trace.arrivals)]
        return statistics.median(gaps) / statistics.mean(gaps)

    assert statistics.median(evenness() for _ in range(7)) > 0.25


def test_overload_is_refused_and_the_server_lives(start: Start) -> None:
    with start(name="crowded", max_queue_size=2) as server:
        traces = asyncio.run(serving.fire(server, [ASK["prompt"]] * 40, 100, ignore_eos=True))
        refused = [trace.error for trace in traces if trace.error]
        assert len(traces) - len(refused) >= 8 and len(refused) > 10
        assert all("6 requests may run and 2 wait (max_queue_size)" in error for error in refused)
        assert all(len(trace.arrivals) == 100 for trace in traces if not trace.error)
        many = {"prompt": [ASK["prompt"]] * 9, "max_tokens": 4}  # one request that asks for too much at once
        answer = httpx.post(f"{server.url}/v1/completions", json=ASK | many, trust_env=False)
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "1"
        assert answer.json()["error"]["code"] == "queue_full"
        assert settled(server)["kv_cache_usage_perc"] == 0
        assert serving.client(server).completions.create(max_tokens=4, model="course", prompt="A").choices


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_within_five_seconds(start: Start, number: signal.Signals) -> None:
    """Short answers are finished; long ones, and those that still wait, are told."""
    with start(name="signalled") as server:

        async def under_load() -> tuple[list[serving.Trace], float]:
            short = asyncio.create_task(serving.fire(server, [ASK["prompt"]] * 4, 20, ignore_eos=True))
            while (await asyncio.to_thread(scrape, server))["time_to_first_token_seconds_count"] < 4:
                await asyncio.sleep(0.02)
            long = asyncio.create_task(serving.fire(server, [ASK["prompt"]] * 60, 250, ignore_eos=True))
            while (await asyncio.to_thread(scrape, server))["num_requests_waiting"] < 50:
                await asyncio.sleep(0.02)
            os.kill(server.pid, number)
            began = time.monotonic()
            traces = await short + await long
            while server.alive():
                await asyncio.sleep(0.02)
            return traces, time.monotonic() - began

        traces, seconds = asyncio.run(under_load())
        assert seconds < 5
        assert [len(trace.arrivals) for trace in traces[:4]] == [20] * 4
        told = [trace for trace in traces if trace.error]
        assert told and all("the engine was shut down" in trace.error for trace in told)
        assert all(len(trace.arrivals) in (20, 250) for trace in traces if not trace.error)
        assert "Traceback" not in server.logs(200)


@pytest.fixture
def executor(engine: EngineDir) -> Iterator[AsyncExecutor]:
    made = AsyncExecutor(Executor(engine, KvCacheConfig(max_tokens=CACHE)), max_queue_size=4)
    yield made
    made.close()


@pytest.fixture
def app(executor: AsyncExecutor, vocabulary: Vocabulary) -> FastAPI:
    return create_app(executor, vocabulary, "course", 256)


def session(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://engine")


def test_the_collector_looks_at_nothing_that_loading_made(app: FastAPI) -> None:
    with TestClient(app):
        assert gc.get_freeze_count() > 100_000
    assert gc.get_freeze_count() == 0


def test_a_failed_step_and_a_stopped_engine_are_told(app: FastAPI, executor: AsyncExecutor) -> None:
    async def story() -> None:
        async with session(app) as http:

            async def status(**change: object) -> tuple[int, int, str]:
                answer = await http.post("/v1/completions", json=ASK | {"max_tokens": 5} | change)
                return answer.status_code, (await http.get("/health")).status_code, answer.text

            assert (await status())[:2] == (200, 200)
            good, executor.executor.graphs.generation = executor.executor.graphs.generation, None
            code, health, text = await status()
            assert (code, health) == (500, 503) and "the engine failed: TypeError" in text
            code, health, text = await status(stream=True)  # the first token had come from the context step
            assert (code, health) == (200, 503) and "the engine failed: TypeError" in text.split("\n\n")[1]
            executor.executor.graphs.generation = good
            assert (await status())[:2] == (200, 200)
            executor.close()
            code, health, text = await status()
            assert (code, health) == (503, 503) and "the engine was shut down" in text

    asyncio.run(asyncio.wait_for(story(), 60))


def test_metrics_count_what_was_asked(app: FastAPI) -> None:
    async def story() -> dict[str, float]:
        async with session(app) as http:
            bodies = [ASK | {"max_tokens": n, "stream": bool(n % 2)} for n in range(1, 7)]
            bodies += [ASK | {"prompt": [[5] * 40, [6] * 40], "max_tokens": 4}, ASK | {"max_tokens": 10_000}]
            bodies += [
                ASK | {"prompt": [7] * 40, "max_tokens": 4, "stop": "e", "temperature": 1.5, "seed": 5}
            ]
            answers = [await http.post("/v1/completions", json=body) for body in bodies]
            assert [answer.status_code for answer in answers] == [200] * 7 + [400, 200]
            again = (await http.post("/v1/completions", json=bodies[6])).json()
            assert again["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}
            return numbers((await http.get("/metrics")).text)

    found = asyncio.run(asyncio.wait_for(story(), 60))
    for name in ("time_to_first_token", "request_queue_time", "e2e_request_latency"):
        assert found[f"{name}_seconds_count"] == 6 + 2 + 1 + 2
    assert found["length"] + found.get("stop", 0) == 11 and "abort" not in found and "error" not in found
    assert found["prompt_tokens_total"] == found["prefix_cache_queries_total"] == 6 * 3 + 5 * 40
    assert found["prefix_cache_hits_total"] == 64
    assert found["inter_token_latency_seconds_count"] == found["generation_tokens_total"] - 11
    assert found["request_queue_time_seconds_sum"] < found["time_to_first_token_seconds_sum"]
    assert found["time_to_first_token_seconds_sum"] < found["e2e_request_latency_seconds_sum"]
    assert found["kv_cache_usage_perc"] == 0


def test_a_waiting_request_notes_once_when_it_starts_and_what_it_reuses(engine: EngineDir) -> None:
    """Twelve blocks: the first takes eight, so the second waits, and looks for its prefix at every step."""
    one = Executor(engine, KvCacheConfig(max_tokens=192))
    one.generate([[5] * 40], SamplingParams(max_tokens=1))
    long, late = (
        Request([9] * 20, SamplingParams(max_tokens=100)),
        Request([5] * 40, SamplingParams(max_tokens=60)),
    )
    one.scheduler.add(long)
    one.scheduler.add(late)
    steps = 0
    while one.scheduler.running or one.scheduler.waiting:
        one.step()
        steps += late.scheduled is None
    assert steps == 100 and late.reused == one.blocks.reused_tokens == 32 and long.reused == 0
    assert late.arrived - long.arrived < 0.1 < late.scheduled - long.scheduled


def test_a_stream_that_is_closed_costs_no_more_steps(executor: AsyncExecutor) -> None:
    async def three() -> None:
        stream = executor.generate([5] * 40, SamplingParams(max_tokens=200))
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        while executor.load().running:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(three(), 60))
    assert executor.executor.steps < 100 and executor.load().kv_cache_usage == 0
