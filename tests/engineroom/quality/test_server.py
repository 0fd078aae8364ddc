"""The quality suite over HTTP, against a real vLLM on the course model."""

from __future__ import annotations

import pytest

from engineroom.kit.process import Server, free_port
from engineroom.quality import score
from engineroom.quality.data import TASKS, held_out_items
from engineroom.quality.data.item import user
from engineroom.quality.http import ServerError, http_generate


def test_a_real_server_passes(vllm: Server) -> None:
    items = [item for task in TASKS for item in held_out_items(task, 20) if len(item.answer) < 250][::8]
    assert len(items) > 15
    assert score(http_generate(vllm.url), items).worst == 1


def test_the_servers_own_words_are_shown(vllm: Server) -> None:
    with pytest.raises(ServerError, match=r"The server answered 400: .*max_tokens"):
        http_generate(vllm.url, max_tokens=-1)([user("What is TTFT?")])


def test_an_address_without_a_server_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=f"No answer from {url}: "):
        http_generate(url)([user("What is TTFT?")])
