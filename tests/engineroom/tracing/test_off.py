"""Tracing that is off costs nothing: no import of OpenTelemetry, and the same Python calls for each token."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

import httpx
import pytest
from fastapi import FastAPI

import engineroom
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from engineroom.tracing.collector import Collector
from engineroom.tracing.instrument import trace_app, traced_backend
from engineroom.tracing.switch import start_tracing
from tests.engineroom.tracing.conftest import Start, body, client, new_trace_id, traceparent

LIBRARY = str(Path(engineroom.__file__).parent)


@pytest.mark.parametrize("is_on", [False, True])
def test_a_server_imports_opentelemetry_only_for_tracing(
    start: Start, collector: Collector, is_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python writes a line for each import into the server's log."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    options = {"otlp_traces_endpoint": collector.url} if is_on else {}
    with start(name=f"imports {is_on}", **options) as server, client(server) as http:
        for stream in (False, True):
            fields = body(3, stream=stream)
            response = http.post("/v1/completions", json=fields, headers=traceparent(new_trace_id()))
            assert response.status_code == 200
    log = server.log.read_text()
    imports = [
        line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")
    ]
    assert "engineroom.openai.app" in imports and "engineroom.tracing.switch" in imports
    assert ("opentelemetry.sdk.trace" in imports) == is_on
    assert any(name.startswith("opentelemetry") for name in imports) == is_on


def calls(app: FastAPI, max_tokens: int, stream: bool) -> tuple[Counter[CodeType], set[CodeType]]:
    """The library's functions that one request calls in the event loop's thread.

    The first result counts calls of functions. The second has the coroutines and generators: how often those resume
    depends on how fast the engine is.
    """
    functions: Counter[CodeType] = Counter()
    coroutines: set[CodeType] = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(LIBRARY):
            return
        if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            coroutines.add(code)
        else:
            functions[code] += 1

    async def post() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as http:
            sys.setprofile(profile)
            try:
                response = await http.post(
                    "/v1/completions", json=body(max_tokens, stream=stream), timeout=60
                )
            finally:
                sys.setprofile(None)
        assert response.status_code == 200

    asyncio.run(post())
    return functions, coroutines


def per_token(app: FastAPI, stream: bool) -> tuple[dict[CodeType, int], set[CodeType]]:
    """Calls for each token, from two requests that differ by 16 tokens; and the coroutines and generators."""
    calls(app, 8, stream)  # what is created once
    (short, _), (long, coroutines) = calls(app, 8, stream), calls(app, 24, stream)
    counts = {code: count - short[code] for code, count in long.items() if count != short[code]}
    assert all(count % 16 == 0 for count in counts.values()), counts
    return {code: count // 16 for code, count in counts.items()}, coroutines


@pytest.mark.parametrize("stream", [False, True])
def test_a_token_takes_the_same_calls_as_without_the_switch(
    executor: AsyncExecutor, vocabulary: Vocabulary, collector: Collector, stream: bool
) -> None:
    without = per_token(create_app(executor, vocabulary, "course", 256), stream)
    assert without[0] and without[1]
    for endpoint in (None, collector.url):
        tracing = start_tracing(endpoint, "engine")
        app = create_app(traced_backend(executor, tracing, "course"), vocabulary, "course", 256)
        trace_app(app, tracing)
        with_switch = per_token(app, stream)
        if tracing is None:
            assert with_switch == without
        else:  # the comparison can fail
            assert with_switch[0].keys() > without[0].keys() and with_switch[1] > without[1]
            tracing.close()


def test_the_backend_itself_serves_without_tracing(executor: AsyncExecutor) -> None:
    assert traced_backend(executor, start_tracing(None, "engine"), "course") is executor
