"""`return_perf_metrics`: in each response, every tensor of NVIDIA's contract, with figures that fit the request."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import InferResult

from engineroom.engine.runtime.kv_cache import BlockManager, BlockTable
from engineroom.openai.text import Vocabulary
from engineroom.triton.backend.perf_metrics import PERF_METRICS, dtype
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import stream

TIMES = ["arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns"]
SENTENCE = "One two three four five six seven eight nine ten. "
TOKENS_PER_BLOCK = 16


def requests(vocabulary: Vocabulary) -> dict[str, dict[str, Any]]:
    """The same request for each model; no other test has this prompt."""
    prompt = "Metrics: " + SENTENCE * 6
    input_ids = vocabulary.encode(prompt)
    text_request = {"text_input": prompt, "max_tokens": 40, "end_id": -1, "stream": True}
    token_request = {"input_ids": input_ids, "input_lengths": len(input_ids), "request_output_len": 40}
    return {
        "tensorrt_llm": token_request | {"streaming": True},
        "tensorrt_llm_bls": text_request,
        "ensemble": text_request,
    }


def values(result: InferResult, names: list[str]) -> list[int]:
    return [int(result.as_numpy(name)[0][0]) for name in names]


@pytest.mark.parametrize("model", ["tensorrt_llm", "tensorrt_llm_bls", "ensemble"])
def test_every_response_has_all_metrics(triton: Triton, vocabulary: Vocabulary, model: str) -> None:
    """NVIDIA's end_to_end_grpc_client.py reads `result.as_numpy(name)[0][0]` of each of them, in each response."""
    request = requests(vocabulary)[model]
    num_prompt_tokens = len(vocabulary.encode("Metrics: " + SENTENCE * 6))
    num_blocks = -(-num_prompt_tokens // TOKENS_PER_BLOCK)
    num_cached_blocks = (num_prompt_tokens - 1) // TOKENS_PER_BLOCK
    stream(triton, model, **request)  # from now on, the cache has the prompt
    *earlier, last = stream(triton, model, **request, return_perf_metrics=True)
    for result in (*earlier, last):
        arrays = {name: result.as_numpy(name) for name in PERF_METRICS}
        assert all(array.shape == (1, 1) and array.dtype == dtype(name) for name, array in arrays.items())
        blocks = ["kv_cache_reused_blocks", "kv_cache_alloc_total_blocks"]
        assert values(result, blocks) == [num_cached_blocks, num_blocks - num_cached_blocks]
        draft_tokens = ["acceptance_rate", "total_accepted_draft_tokens", "total_draft_tokens"]
        assert values(result, draft_tokens) == [0, 0, 0]
    assert values(last, TIMES) == sorted(values(last, TIMES)) and values(last, TIMES)[0] > 0
    assert [values(result, TIMES) for result in earlier] == [[*values(last, TIMES)[:3], 0]] * len(earlier)


def test_without_the_flag_no_metrics_are_sent(triton: Triton, vocabulary: Vocabulary) -> None:
    for model, request in requests(vocabulary).items():
        for flag in ({}, {"return_perf_metrics": False}):
            for result in stream(triton, model, **request, **flag):
                assert not {output.name for output in result.get_response().outputs} & {*PERF_METRICS}


def test_blocks_are_counted_as_reused_new_or_evicted() -> None:
    manager = BlockManager(5, 4)
    first = manager.match_prefix([1] * 10)
    assert manager.allocate(first, 10) and first.counts == (0, 3, 3)
    manager.cache_full_blocks(first, [1] * 10)
    manager.free(first)
    second = manager.match_prefix([1] * 9)
    assert manager.allocate(second, 9) and second.counts == (2, 1, 1)
    manager.free(second)
    third = BlockTable()
    assert manager.allocate(third, 17) and third.counts == (0, 5, 3)  # two blocks were in the cache until now
