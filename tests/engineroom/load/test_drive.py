"""Closed and open loop, the sweep and vLLM's own benchmark, against the real vLLM."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engineroom import load
from engineroom.kit.process import Server
from engineroom.load.shape import write_shape
from engineroom.vllm.bench import BenchFailed, bench_serve


def most_in_flight(traces: list) -> int:
    events = sorted([(t.sent, 1) for t in traces] + [(t.arrivals[-1], -1) for t in traces])
    now = most = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def test_a_closed_loop_never_has_more_in_flight_than_users(vllm: Server) -> None:
    traces = asyncio.run(load.closed_loop(vllm, load.random_prompts(9, 16), 8, users=3, ignore_eos=True))
    assert [len(trace.arrivals) for trace in traces] == [8] * 9
    assert {trace.prompt_tokens for trace in traces} == {16}
    assert 1 < most_in_flight(traces) <= 3


def test_an_open_loop_sends_on_time_whatever_the_server_does(vllm: Server) -> None:
    prompts = load.random_prompts(20, 16)
    traces = asyncio.run(load.open_loop(vllm, prompts, 200, rate=1000, ignore_eos=True))
    assert (
        most_in_flight(traces) > 4
    )  # more than the server runs at once: the rest queues, and still they come


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    assert load.random_prompts(3, 4, seed=7) == load.random_prompts(3, 4, seed=7)
    assert load.random_prompts(3, 4, seed=7) != load.random_prompts(3, 4, seed=8)


def test_wrong_loads_are_refused(vllm: Server) -> None:
    with pytest.raises(ValueError, match="above 0"):
        asyncio.run(load.open_loop(vllm, [[1]], 1, rate=0))
    with pytest.raises(ValueError, match="1 or more"):
        asyncio.run(load.closed_loop(vllm, [[1]], 1, users=0))


def test_the_sweep_goes_up_until_the_promise_breaks(vllm: Server) -> None:
    kept = asyncio.run(load.sweep(vllm, load.SLO(100, 100), 4, 16, 8, seconds=1, factor=2, most=2))
    assert [point.rate for point in kept] == [4, 8]
    assert all(point.share(load.SLO(100, 100)) == 1 for point in kept)
    broken = asyncio.run(load.sweep(vllm, load.SLO(1e-9, 100), 4, 16, 8, seconds=1))
    assert [point.share(load.SLO(1e-9, 100)) for point in broken] == [0, 0]


def test_vllms_benchmark_sees_what_we_see(vllm: Server) -> None:
    result = bench_serve(vllm, random_input_len=16, random_output_len=8, num_prompts=12, max_concurrency=4)
    assert result["completed"] == 12
    assert result["total_output_tokens"] == 96
    with pytest.raises(BenchFailed, match="random-input-len"):
        bench_serve(vllm, random_input_len="many")


def test_a_shape_is_a_model_folder_without_weights(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    folder = write_shape("llama-3.1-8b", tmp_path)
    config = AutoConfig.from_pretrained(folder)
    assert (config.num_hidden_layers, config.hidden_size, config.num_key_value_heads) == (32, 4096, 8)
    assert len(AutoTokenizer.from_pretrained(folder)) == config.vocab_size
    assert not list(folder.glob("*.safetensors"))
    with pytest.raises(ValueError, match=r"llama-3\.1-8b"):
        write_shape("gpt-9", tmp_path)
