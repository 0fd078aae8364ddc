"""A streaming client that notes when each request was sent and when each of its tokens arrived."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
import openai

from engineroom.kit.limits import raise_open_files
from engineroom.kit.network import async_http_client, is_loopback
from engineroom.kit.process import Server
from engineroom.load.answer import AnswerReader, StreamError
from engineroom.load.sse import EventDecoder, read_events
from engineroom.load.trace import Trace

Prompt = str | Sequence[int] | Sequence[dict[str, str]]  # text, token ids, or the messages of a chat


def openai_client(server: Server) -> openai.OpenAI:
    """OpenAI's own client, connected to this server. No proxy is used for a server on loopback."""
    http = openai.DefaultHttpxClient(trust_env=not is_loopback(server.url))
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
    weakref.finalize(client, http.close)  # OpenAI's client closes only an HTTP client that it made itself
    return client


async def stream(
    session: httpx.AsyncClient, model: str, prompt: Prompt, max_tokens: int, **body: Any
) -> Trace:
    """Send one streaming request: text or token ids to /v1/completions, messages to /v1/chat/completions.

    ``body`` is added to the request; ``stream_options=None`` leaves out the request for token counts, for servers that
    refuse it. A failure is not raised: ``error`` has the server's own message. A stream that ends without [DONE] and
    without a finish reason is a failure.
    """
    chat = not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], dict)
    path, key = ("/v1/chat/completions", "messages") if chat else ("/v1/completions", "prompt")
    usage = {"include_usage": True, "continuous_usage_stats": True}
    request = {"model": model, key: prompt, "max_tokens": max_tokens, "stream": True, "stream_options": usage}
    reader = AnswerReader(chat)
    trace = Trace(time.perf_counter())
    try:
        async with session.stream("POST", path, json=request | body) as response:
            if response.status_code == 200:
                await _read_answer(response, reader)
            else:
                text = (await response.aread()).decode(errors="replace")
                trace.error = f"HTTP {response.status_code}: {text or response.reason_phrase}"
    except StreamError as error:
        trace.error = str(error)
    except httpx.HTTPError as error:
        trace.error = f"{type(error).__name__}: {error}"
    reader.fill(trace)
    return trace


async def _read_answer(response: httpx.Response, reader: AnswerReader) -> None:
    """Read up to the end of the answer. Raises StreamError for a wrong or incomplete stream."""
    decoder = EventDecoder()
    async with aclosing(read_events(response.aiter_bytes(), decoder)) as events:
        async for event in events:
            reader.add(event, time.perf_counter())
            if reader.done:
                return
    if not reader.complete:
        unparsed = decoder.unparsed.decode(errors="replace").strip()
        sent = f" It has lines that are no events: {unparsed}" if unparsed else ""
        raise StreamError(f"The stream ended without a finish reason and without [DONE].{sent}")


@functools.cache
def _import_backend() -> None:
    """Import what httpx otherwise imports during the first request, where it would count as time to first token.

    The request goes to a port that nothing listens on, from a thread because an event loop may run in this one.
    """

    async def request() -> None:
        with socket.socket() as unused, suppress(httpx.HTTPError):
            unused.bind(("127.0.0.1", 0))
            async with async_http_client(f"http://127.0.0.1:{unused.getsockname()[1]}") as http:
                await http.get("/")

    thread = threading.Thread(target=asyncio.run, args=(request(),))
    thread.start()
    thread.join()


def session(server: Server, timeout: float = 300) -> httpx.AsyncClient:
    """An HTTP session without a limit on connections. No proxy is used for a server on loopback."""
    _import_backend()
    raise_open_files()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return async_http_client(server.url, timeout=timeout, limits=limits)


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
