"""The engine's server reports its blocks and prefix hits under vLLM's names."""

from __future__ import annotations

import asyncio

from engineroom import load
from engineroom.metrics.kv_cache import kv_cache_stats
from tests.engineroom.openai.conftest import CACHE_TOKENS, Start


def test_a_prefix_hit_is_counted_in_tokens(start: Start) -> None:
    """Blocks hold 16 tokens; a prompt of 40 tokens has two full ones before its last token."""
    prompt = [300 + i for i in range(40)]
    with start(name="stats") as server:
        for _ in range(2):
            asyncio.run(load.fire(server, [prompt], 8, ignore_eos=True))
        stats = kv_cache_stats(server)
    assert (stats.num_usable_blocks, stats.block_size) == (CACHE_TOKENS // 16, 16)
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (80, 32)
    assert (stats.num_used_blocks, stats.num_preemptions) == (0, 0)


def test_preemptions_are_counted(start: Start) -> None:
    """Four requests of 96 tokens in a cache of 160: all start, and blocks run out."""
    options = {"batch_scheduler_policy": "max_utilization", "max_tokens_in_paged_kv_cache": 160}
    with start(name="preempting", **options) as server:
        prompts = [[300 + 50 * n + i for i in range(16)] for n in range(4)]
        asyncio.run(load.fire(server, prompts, 80, ignore_eos=True))
        assert kv_cache_stats(server).num_preemptions > 0
