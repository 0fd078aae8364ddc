"""A streaming client that notes when each request was sent and when each of its tokens arrived."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai

from engineroom.kit.process import Server

Prompt = str | Sequence[int] | Sequence[dict[str, str]]  # text, token ids, or the messages of a chat


@dataclass
class Trace:
    """One streamed request as the client sees it. Times are in seconds on one monotonic clock (time.perf_counter).

    ``arrivals`` has one entry for each output token; tokens that arrived in one chunk share their time.
    """

    sent: float
    arrivals: list[float] = field(default_factory=list)
    text: str = ""
    prompt_tokens: int = 0
    error: str | None = None


def openai_client(server: Server) -> openai.OpenAI:
    """OpenAI's own client, connected to this server."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def stream(
    session: httpx.AsyncClient, model: str, prompt: Prompt, max_tokens: int, **body: Any
) -> Trace:
    """Send one streaming request: text or token ids to /v1/completions, messages to /v1/chat/completions.

    ``body`` is added to the request. A failure is not raised: ``error`` has the server's own message.
    """
    chat = isinstance(prompt[0], dict)
    path, key = ("/v1/chat/completions", "messages") if chat else ("/v1/completions", "prompt")
    usage = {"include_usage": True, "continuous_usage_stats": True}
    request = {"model": model, key: prompt, "max_tokens": max_tokens, "stream": True, "stream_options": usage}
    trace = Trace(time.perf_counter())
    try:
        async with session.stream("POST", path, json=request | body) as response:
            if response.status_code != 200:
                trace.error = (await response.aread()).decode(errors="replace")
                return trace
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    _add_chunk(trace, json.loads(line.removeprefix("data: ")), chat)
    except httpx.HTTPError as error:
        trace.error = f"{type(error).__name__}: {error}"
    return trace


def _add_chunk(trace: Trace, chunk: dict[str, Any], chat: bool) -> None:
    now = time.perf_counter()
    if "error" in chunk:
        trace.error = str(chunk["error"])
        return
    for choice in chunk["choices"]:
        trace.text += (choice["delta"].get("content") if chat else choice["text"]) or ""
    if usage := chunk.get("usage"):
        trace.prompt_tokens = usage["prompt_tokens"]
        trace.arrivals += [now] * (usage["completion_tokens"] - len(trace.arrivals))


def session(server: Server, timeout: float = 300) -> httpx.AsyncClient:
    """An HTTP session without a limit on connections. The server is on loopback, so no proxy is used."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=server.url, timeout=timeout, limits=limits, trust_env=False)


async def fire(
    server: Server,
    prompts: Sequence[Prompt],
    max_tokens: int | Sequence[int] = 64,
    *,
    model: str = "course",
    **body: Any,
) -> list[Trace]:
    """Send all prompts at once and wait for every answer; the traces are in the order of the prompts.

    ``max_tokens`` is one limit for all answers, or one for each answer.
    """
    limits = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else max_tokens
    async with session(server) as http:
        pairs = zip(prompts, limits, strict=True)
        return await asyncio.gather(*(stream(http, model, prompt, limit, **body) for prompt, limit in pairs))
