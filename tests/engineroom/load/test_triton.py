"""The load client before Triton: its OpenAI frontend, and what it makes of Triton's own `generate_stream`."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from engineroom import load
from engineroom.kit.process import Server
from engineroom.load.client import Prompt
from engineroom.load.errors import LoadError
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import (
    checkpoint,
    engine,
    frontend,
    repository,
    start_triton,
    triton,
    vocabulary,
)

__all__ = ["checkpoint", "engine", "frontend", "repository", "start_triton", "triton", "vocabulary"]
PROMPTS: list[Prompt] = [
    "One two three",
    [300, 301, 302],
    [{"role": "user", "content": "What is TTFT?"}],
]
KEY = {"Authorization": "Bearer sesame"}
ONCE, EACH = {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": True}


def ask(server: Server, prompt: Prompt, max_tokens: int, **body: object) -> load.Trace:
    async def run() -> load.Trace:
        async with load.session(server) as session:
            session.headers.update(KEY)
            body_with_defaults = {"temperature": 0, "ignore_eos": True} | body
            return await load.stream(session, "course", prompt, max_tokens, **body_with_defaults)

    return asyncio.run(run())


@pytest.mark.parametrize("prompt", PROMPTS)
def test_what_the_frontend_tells_is_counted_and_the_rest_is_unknown(frontend: Server, prompt: Prompt) -> None:
    each, once, never = (ask(frontend, prompt, 12, stream_options=usage) for usage in (EACH, ONCE, None))
    assert [trace.error for trace in (each, once, never)] == [None] * 3
    assert each.text == once.text == never.text != ""
    assert [trace.output_tokens for trace in (each, once, never)] == [12, 12, None]
    assert each.prompt_tokens == once.prompt_tokens is not None
    assert never.prompt_tokens is None
    assert load.tpot(each) > 0
    with pytest.raises(LoadError, match="number of output tokens is unknown"):
        load.tpot(never)


def test_refusals_are_failures_with_the_server_s_words(frontend: Server) -> None:
    assert "HTTP 401" in (asyncio.run(load.fire(frontend, [PROMPTS[0]], 4))[0].error or "")
    assert "max_seq_len is 256" in (ask(frontend, PROMPTS[0], 500).error or "")


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
def test_triton_s_own_endpoints_are_not_openai_s(triton: Triton, path: str) -> None:
    """The load client reads OpenAI's API only, which Triton itself lacks: a failure with its status, no figures."""
    body = {"text_input": "One two three", "max_tokens": 3, "stream": path == "generate_stream"}
    url = f"{triton.url}/v2/models/tensorrt_llm_bls/{path}"
    assert httpx.post(url, json=body, trust_env=False, timeout=60).status_code == 200
    trace = asyncio.run(load.fire(triton.server, [PROMPTS[0]], 3))[0]
    assert "HTTP 400" in (trace.error or "") or "HTTP 404" in (trace.error or "")
    assert (trace.output_tokens, trace.prompt_tokens, trace.text) == (None, None, "")
    with pytest.raises(LoadError, match="This request failed"):
        load.ttft(trace)
