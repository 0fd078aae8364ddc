"""KV cache statistics have the same names and meaning whether vLLM or this engine reports them."""

from __future__ import annotations

import pytest

from engineroom.metrics.kv_cache import KvCacheStatsError, parse_stats
from engineroom.metrics.prometheus import parse

PAGE = """\
PREFIX:cache_config_info{block_size="128",num_gpu_blocks="33",cache_dtype="auto"} 1.0
PREFIX:kv_cache_usage_perc{engine="0"} 0.5
PREFIX:prefix_cache_queries_total{engine="0"} 340.0
PREFIX:prefix_cache_hits_total{engine="0"} 256.0
PREFIX:num_preemptions_total{engine="0"} 2.0
"""


@pytest.mark.parametrize(("prefix", "num_usable_blocks"), [("vllm", 32), ("engineroom", 33)])
def test_both_servers_are_read_alike(prefix: str, num_usable_blocks: int) -> None:
    stats = parse_stats(parse(PAGE.replace("PREFIX", prefix)))
    assert (stats.num_blocks, stats.block_size, stats.num_tokens) == (33, 128, 4224)
    assert stats.num_usable_blocks == num_usable_blocks
    assert stats.num_used_blocks == round(num_usable_blocks / 2)
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits, stats.num_preemptions) == (340, 256, 2)


def test_a_page_of_another_server_or_of_two_is_refused() -> None:
    for page in ("up 1\n", PAGE.replace("PREFIX", "vllm") + PAGE.replace("PREFIX", "engineroom")):
        with pytest.raises(KvCacheStatsError, match="one metric cache_config_info"):
            parse_stats(parse(page))
