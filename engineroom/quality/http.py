"""Answers from any OpenAI-compatible server, so that the same items score every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from engineroom.kit.errors import UserError
from engineroom.kit.network import async_http_client
from engineroom.quality.data import Chat
from engineroom.quality.score import Generate


class ServerError(UserError, RuntimeError):
    """A server that does not answer, or that refuses a request; the message has the server's own words."""


async def answer(client: httpx.AsyncClient, model: str, chat: Chat, max_tokens: int) -> str:
    """One greedy chat completion. Raises ServerError when the server refuses it."""
    body = {"model": model, "messages": chat, "temperature": 0, "max_tokens": max_tokens}
    response = _checked(await client.post("/v1/chat/completions", json=body))
    return response.json()["choices"][0]["message"]["content"]


async def served_model(client: httpx.AsyncClient) -> str:
    """The id of the first model that the server lists. Raises ServerError when it refuses."""
    response = _checked(await client.get("/v1/models"))
    return response.json()["data"][0]["id"]


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise ServerError(f"The server answered {response.status_code}: {response.text[:500]}")
    return response


async def answer_all(
    url: str, chats: Sequence[Chat], concurrency: int, max_tokens: int, timeout: float
) -> list[str]:
    """The answers to all chats, in their order. Raises ServerError."""
    limit = asyncio.Semaphore(concurrency)
    try:
        async with async_http_client(url, timeout=timeout) as client:
            model = await served_model(client)

            async def limited_answer(chat: Chat) -> str:
                async with limit:
                    return await answer(client, model, chat, max_tokens)

            return list(await asyncio.gather(*map(limited_answer, chats)))
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ServerError(
            f"No answer from {url}: {reason}. Is the server running, and is this its address?"
        ) from error


def http_generate(url: str, concurrency: int = 8, max_tokens: int = 1024, timeout: float = 300.0) -> Generate:
    """Return a Generate that asks the server at `url` (without /v1), `concurrency` requests at a time.

    `timeout` is in seconds for each request.
    """

    def generate(chats: Sequence[Chat]) -> list[str]:
        return asyncio.run(answer_all(url, chats, concurrency, max_tokens, timeout))

    return generate
