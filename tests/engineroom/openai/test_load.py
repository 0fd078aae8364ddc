"""Too many requests, clients that leave, an engine that breaks, a signal in the middle: nothing is lost or left."""

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
from engineroom.engine.runtime.executor import Executor, KvCacheConfig, Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Request
from engineroom.kit import process
from engineroom.kit.process import Server
from engineroom.load.client import session as session_of
from engineroom.metrics.prometheus import parse
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.openai.conftest import CACHE, Start, numbers, scrape

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
    """32 at once on six seats. 16 stay; eight leave their streams after the first token, and eight without a stream at
    the first token of anybody: most of these wait, some are in the middle.
    """
    before, first = scrape(server), asyncio.Event()

    async def stay(http: httpx.AsyncClient, stream: bool) -> str:
        return (await http.post("/v1/completions", json=ASK | {"max_tokens": 40, "stream": stream})).text

    async def leave_stream(http: httpx.AsyncClient) -> None:
        body = ASK | {"max_tokens": 200, "stream": True}
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            await anext(answer.aiter_lines())
            first.set()

    async def leave_without_stream(http: httpx.AsyncClient) -> None:
        asking = asyncio.create_task(http.post("/v1/completions", json=ASK | {"max_tokens": 200}))
        await first.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def everybody() -> list[str | None]:
        async with session_of(server) as http:
            clients = [
                client
                for number in range(8)
                for client in (
                    leave_stream(http),
                    leave_without_stream(http),
                    stay(http, number % 2 > 0),
                    stay(http, number % 2 == 0),
                )
            ]
            return await asyncio.gather(*clients)

    answers = asyncio.run(everybody())
    assert len(list(filter(None, answers))) == 16
    after = settled(server)
    change = {name: value - before.get(name, 0) for name, value in after.items()}
    assert (after["num_requests_running"], after["num_requests_waiting"]) == (0, 0)
    assert after["kv_cache_usage_perc"] == 0
    ended = change["length"]  # some of them in the moment when their client left
    assert 16 <= ended <= 32 - change["abort"] and change["abort"] > 8
    assert change["e2e_request_latency_seconds_count"] == ended
    began, tokens = change["time_to_first_token_seconds_count"], change["generation_tokens_total"]
    assert ended <= began <= 32 and change["inter_token_latency_seconds_count"] == tokens - began
    assert change["request_queue_time_seconds_count"] == began and change["prompt_tokens_total"] == 3 * began


def test_more_than_a_server_holds_is_refused_and_it_lives(start: Start) -> None:
    with start(name="crowded", max_queue_size=2) as server:
        many = {"prompt": [ASK["prompt"]] * 9, "max_tokens": 4}  # all in one turn of its event loop
        answer = httpx.post(f"{server.url}/v1/completions", json=ASK | many, trust_env=False)
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "1"
        error = answer.json()["error"]
        assert error["code"] == "queue_full"
        assert "6 requests may run and 2 wait (max_queue_size)" in error["message"]
        assert settled(server)["kv_cache_usage_perc"] == 0
        assert load.openai_client(server).completions.create(max_tokens=4, model="course", prompt="A").choices


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_before_its_work_is_done(start: Start, number: signal.Signals) -> None:
    """Short answers are finished; most of 10,000 steps is not done: long ones, and those that wait, are told."""
    with start(name="signalled") as server:

        async def under_load() -> list[load.Trace]:
            short = asyncio.create_task(load.fire(server, [ASK["prompt"]] * 4, 20, ignore_eos=True))
            while (await asyncio.to_thread(scrape, server)).get("length", 0) < 4:
                await asyncio.sleep(0.02)
            long = asyncio.create_task(load.fire(server, [ASK["prompt"]] * 240, 250, ignore_eos=True))
            while (await asyncio.to_thread(scrape, server))["num_requests_waiting"] < 200:
                await asyncio.sleep(0.02)
            os.kill(server.pid, number)
            return await short + await long

        traces = asyncio.run(under_load())
        assert eventually(lambda: not server.alive())
        assert [len(trace.arrivals) for trace in traces[:4]] == [20] * 4
        told = [trace for trace in traces if trace.error]
        assert len(told) > 120 and all("the engine was shut down" in trace.error for trace in told)
        assert all(len(trace.arrivals) in (20, 250) for trace in traces if not trace.error)
        assert "Traceback" not in server.logs(200)


def test_it_ends_by_sigterm_where_sigint_is_ignored(engine: EngineDir) -> None:
    line = [sys.executable, "-m", "engineroom.openai", str(engine.path), "--port", "{port}"]
    line += ["--max_tokens_in_paged_kv_cache", str(CACHE)]
    with process.start(with_sigint(signal.SIG_IGN, line), name="deaf engine") as server:
        os.kill(server.pid, signal.SIGTERM)
        assert eventually(lambda: not server.alive())


@pytest.fixture
def executor(engine: EngineDir) -> Iterator[AsyncExecutor]:
    made = AsyncExecutor(Executor(engine, KvCacheConfig(max_tokens=CACHE)), max_queue_size=4)
    yield made
    made.close()


class Braked(Executor):
    """Computes as many steps as `permits` allow, and holds the next one until there are more."""

    def __init__(self, engine: EngineDir, kv: KvCacheConfig) -> None:
        super().__init__(engine, kv)
        self.permits = threading.Semaphore(0)

    def step(self) -> list[tuple[Request, Output]]:
        if self.scheduler.waiting or self.scheduler.running:
            self.permits.acquire()
        return super().step()

    def release(self) -> None:
        self.permits.release(1_000_000)


@pytest.fixture
def braked(engine: EngineDir) -> Iterator[AsyncExecutor]:
    brake = Braked(engine, KvCacheConfig(max_tokens=CACHE))
    loop = AsyncExecutor(brake, max_queue_size=4)
    yield loop
    brake.release()
    loop.close()


@pytest.fixture
def app(executor: AsyncExecutor, vocabulary: Vocabulary) -> FastAPI:
    return create_app(executor, vocabulary, "course", 256)


def session(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://engine")


class Holding(Executor):
    """Each step holds the GIL for a millisecond more, as the steps of a larger model do."""

    def step(self) -> list[tuple[Request, Output]]:
        outputs = super().step()
        ctypes.PyDLL(None).usleep(1000)
        return outputs


def test_tokens_of_a_stream_come_one_by_one(engine: EngineDir) -> None:
    """A step on a CPU holds the GIL; the event loop gets its turn after most of them, not after ten.

    Another program of the machine may have the core in its turn, but not in each of the streams.
    """
    loop = AsyncExecutor(Holding(engine, KvCacheConfig(max_tokens=CACHE)))

    async def turns() -> int:
        stream = loop.generate(ASK["prompt"], SamplingParams(max_tokens=200))
        return len({loop.executor.steps async for _ in stream})

    assert any(asyncio.run(turns()) > 120 for _ in range(20))
    loop.close()


def test_overload_is_refused(braked: AsyncExecutor, vocabulary: Vocabulary) -> None:
    """40 requests before the first step: six run, four wait, and the engine goes on when the others were refused."""
    refusals: list[str] = []

    async def ask(http: httpx.AsyncClient) -> int:
        answer = await http.post("/v1/completions", json=ASK | {"max_tokens": 100})
        if answer.status_code == 200:
            return answer.json()["usage"]["completion_tokens"]
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "1"
        refusals.append(answer.json()["error"]["message"])
        if len(refusals) == 30:
            braked.executor.release()
        return 0

    async def everybody() -> list[int]:
        async with session(create_app(braked, vocabulary, "course", 256)) as http:
            return await asyncio.wait_for(asyncio.gather(*(ask(http) for _ in range(40))), 60)

    assert sorted(asyncio.run(everybody())) == [0] * 30 + [100] * 10
    assert all("6 requests may run and 4 wait (max_queue_size)" in message for message in refusals)
    assert braked.executor.blocks.available == braked.executor.blocks.total


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
            return numbers(parse((await http.get("/metrics")).text))

    found = asyncio.run(asyncio.wait_for(story(), 60))
    for name in ("time_to_first_token", "request_queue_time", "e2e_request_latency"):
        assert found[f"{name}_seconds_count"] == 6 + 2 + 1 + 2
    assert found["length"] + found.get("stop", 0) == 11 and "abort" not in found and "error" not in found
    assert found["prompt_tokens_total"] == found["prefix_cache_queries_total"] == 6 * 3 + 5 * 40
    assert found["prefix_cache_hits_total"] == 64
    assert found["inter_token_latency_seconds_count"] == found["generation_tokens_total"] - 11
    names = ("request_queue_time", "time_to_first_token", "e2e_request_latency")
    queued, first, whole = (found[f"{name}_seconds_sum"] for name in names)
    assert 0 < queued <= first <= whole
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
    noted, clock = list[float | None](), list[float]()
    while one.scheduler.running or one.scheduler.waiting:
        clock.append(time.perf_counter())
        one.step()
        noted.append(late.scheduled)
    assert noted[:100] == [None] * 100 and set(noted[100:]) == {late.scheduled}
    assert late.reused == one.blocks.reused_tokens == 32 and long.reused == 0
    assert long.arrived <= late.arrived <= clock[0] <= long.scheduled  # clock: readings in their order
    assert long.scheduled <= clock[1] <= clock[100] <= late.scheduled <= clock[101]  # clock: likewise


def test_a_stream_that_is_closed_costs_no_more_steps(braked: AsyncExecutor) -> None:
    async def three() -> None:
        braked.executor.permits.release(3)
        stream = braked.generate([5] * 40, SamplingParams(max_tokens=200))
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        braked.executor.release()
        while braked.load().running:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(three(), 60))
    assert braked.executor.steps == 3 and braked.load().kv_cache_usage == 0
