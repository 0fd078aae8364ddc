"""Answers from any OpenAI-compatible server, so that each engine is scored by the same items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx

from engineroom.quality.data import Chat
from engineroom.quality.score import Generate


async def answer(client: httpx.AsyncClient, model: str, chat: Chat, max_tokens: int) -> str:
    """One greedy chat completion. Raises RuntimeError with the server's own words when it refuses."""
    body = {"model": model, "messages": chat, "temperature": 0, "max_tokens": max_tokens}
    response = await client.post("/v1/chat/completions", json=body)
    if response.is_error:
        raise RuntimeError(f"the server answered {response.status_code}: {response.text[:500]}")
    return response.json()["choices"][0]["message"]["content"]


async def served_model(client: httpx.AsyncClient) -> str:
    """The first model that the server lists."""
    response = await client.get("/v1/models")
    response.raise_for_status()
    return response.json()["data"][0]["id"]


async def ask_all(
    url: str, chats: Sequence[Chat], concurrency: int, max_tokens: int, timeout: float
) -> list[str]:
    limit = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=timeout) as client:
        model = await served_model(client)

        async def ask(chat: Chat) -> str:
            async with limit:
                return await answer(client, model, chat, max_tokens)

        return list(await asyncio.gather(*(ask(chat) for chat in chats)))


def http_generate(url: str, concurrency: int = 8, max_tokens: int = 1024, timeout: float = 300.0) -> Generate:
    """Answers by the server at `url` (without /v1), `concurrency` requests at a time; timeout in seconds."""

    def generate(chats: Sequence[Chat]) -> list[str]:
        return asyncio.run(ask_all(url, chats, concurrency, max_tokens, timeout))

    return generate
