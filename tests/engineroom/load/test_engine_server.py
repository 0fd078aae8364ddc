"""The load client before this project's own server."""

from __future__ import annotations

import asyncio

from engineroom import load
from engineroom.kit.process import Server
from tests.engineroom.openai.conftest import checkpoint, engine, server, start

__all__ = ["checkpoint", "engine", "server", "start"]
CHAT = [{"role": "user", "content": "What is TTFT?"}]


def test_counts_and_text_agree_whichever_usage_is_sent(server: Server) -> None:
    for prompt in (CHAT, [300, 301, 302]):
        each, end, none = (
            asyncio.run(
                load.fire(server, [prompt], 12, temperature=0, ignore_eos=True, stream_options=options)
            )[0]
            for options in (
                {"include_usage": True, "continuous_usage_stats": True},
                {"include_usage": True},
                None,
            )
        )
        assert each.text == end.text == none.text
        assert (each.error, end.error, none.error) == (None, None, None)
        assert (each.output_tokens, end.output_tokens, none.output_tokens) == (12, 12, None)
        assert not each.per_chunk
        assert none.prompt_tokens is None
        assert each.prompt_tokens == end.prompt_tokens


def test_an_answer_of_one_token_has_a_ttft_and_no_tpot(server: Server) -> None:
    trace = asyncio.run(load.fire(server, [[300, 301]], 1))[0]
    assert trace.error is None
    assert load.summary([trace])["ttft_p50"] == load.ttft(trace) == load.e2e(trace)
    assert load.tpots([trace]) == []
