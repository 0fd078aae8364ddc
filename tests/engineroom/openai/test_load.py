"""A server under too many requests, clients that leave, and signals: no request is lost or left."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import httpx
import pytest

from engineroom import load
from engineroom.engine.directory import EngineDir
from engineroom.kit import process
from engineroom.kit.process import Server
from engineroom.load.client import session as session_of
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.openai.conftest import CACHE_TOKENS, Start, scrape

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
