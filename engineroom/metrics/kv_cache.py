"""The KV cache of a running server in numbers, under the same names for vLLM and for this engine.

vLLM publishes them in vllm/v1/metrics/loggers.py; this engine's server uses vLLM's names with a prefix of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engineroom.kit.errors import UserError
from engineroom.kit.process import Server
from engineroom.metrics.prometheus import VLLM, Sample, fetch, total

ENGINE = "engineroom:"  # the prefix of this engine's metrics
# Blocks of num_gpu_blocks that no request gets: in vLLM, block 0 (v1/core/block_pool.py).
RESERVED_BLOCKS = {VLLM: 1, ENGINE: 0}


class KvCacheStatsError(UserError, ValueError):
    """A page of metrics does not describe a KV cache."""


@dataclass(frozen=True)
class KvCacheStats:
    """The size of a KV cache in blocks and in tokens, what is in use, and counters since the server's start.

    - `num_usable_blocks`: the blocks that requests can get.
    - `usage`: the share of these that running requests hold, from 0 to 1.
    - `prefix_cache_queries`, `prefix_cache_hits`: prompt tokens looked up in the cache, and those that it had.
    """

    num_blocks: int
    block_size: int
    num_usable_blocks: int
    usage: float
    prefix_cache_queries: int
    prefix_cache_hits: int
    num_preemptions: int

    @property
    def num_tokens(self) -> int:
        """The tokens that all blocks hold; vLLM's log reports this number."""
        return self.num_blocks * self.block_size

    @property
    def num_used_blocks(self) -> int:
        return round(self.usage * self.num_usable_blocks)


def kv_cache_stats(server: Server | str) -> KvCacheStats:
    """Read a server's metrics, vLLM's or this engine's. Raises KvCacheStatsError, httpx.HTTPError and ValueError."""
    return parse_stats(fetch(server))


def parse_stats(samples: Iterable[Sample]) -> KvCacheStats:
    """Raises KvCacheStatsError if the samples have no `cache_config_info`, or more than one."""
    samples = list(samples)
    configs = [sample for sample in samples if sample.name.endswith(":cache_config_info")]
    if len(configs) != 1:
        raise KvCacheStatsError(
            f"Expected one metric cache_config_info, got {len(configs)}. Give the /metrics of one vLLM or engine."
        )
    prefix = configs[0].name.removesuffix("cache_config_info")
    num_blocks = int(configs[0].labels["num_gpu_blocks"])
    values = total(samples, prefix)
    return KvCacheStats(
        num_blocks=num_blocks,
        block_size=int(configs[0].labels["block_size"]),
        num_usable_blocks=num_blocks - RESERVED_BLOCKS.get(prefix, 0),
        usage=values["kv_cache_usage_perc"],
        prefix_cache_queries=int(values["prefix_cache_queries_total"]),
        prefix_cache_hits=int(values["prefix_cache_hits_total"]),
        num_preemptions=int(values["num_preemptions_total"]),
    )
