"""Closed and open loop, the sweep and vLLM's own benchmark, against the real vLLM."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from pathlib import Path

import pytest

from engineroom import load
from engineroom.kit.process import Server
from engineroom.load.shape import write_shape
from engineroom.vllm.bench import BenchFailed, bench_serve


def max_in_flight(traces: list[load.Trace]) -> int:
    starts = [(trace.sent, 1) for trace in traces]
    ends = [(trace.arrivals[-1], -1) for trace in traces]
    return max(accumulate(change for _, change in sorted(starts + ends)))


def test_a_closed_loop_never_has_more_in_flight_than_users(vllm: Server) -> None:
    traces = asyncio.run(load.closed_loop(vllm, load.random_prompts(9, 16), 8, users=3, ignore_eos=True))
    assert [len(trace.arrivals) for trace in traces] == [8] * 9
    assert {trace.prompt_tokens for trace in traces} == {16}
    assert 1 < max_in_flight(traces) <= 3


def test_an_open_loop_sends_on_time_whatever_the_server_does(vllm: Server) -> None:
    prompts = load.random_prompts(20, 16)
    traces = asyncio.run(load.open_loop(vllm, prompts, 200, rate=1000, ignore_eos=True))
    assert (
        max_in_flight(traces) > 4
    )  # more than the server runs at once: requests arrive although others wait


def test_usage_at_the_end_gives_the_same_counts_as_usage_with_each_chunk(vllm: Server) -> None:
    chat = [{"role": "user", "content": "What is TTFT?"}]
    for prompt in (chat, [300, 301, 302]):
        each, end, none = (
            asyncio.run(
                load.fire(vllm, [prompt], 12, temperature=0, ignore_eos=True, stream_options=options)
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
        assert 1 <= len(none.arrivals) <= 12


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    assert load.random_prompts(3, 4, seed=7) == load.random_prompts(3, 4, seed=7)
    assert load.random_prompts(3, 4, seed=7) != load.random_prompts(3, 4, seed=8)


def test_wrong_settings_are_refused(vllm: Server) -> None:
    with pytest.raises(load.LoadError, match="above 0"):
        asyncio.run(load.open_loop(vllm, [[1]], 1, rate=0))
    with pytest.raises(load.LoadError, match="1 or more"):
        asyncio.run(load.closed_loop(vllm, [[1]], 1, users=0))


def test_the_sweep_goes_up_until_the_promise_breaks(vllm: Server) -> None:
    loose, impossible = load.SLO(100, 100), load.SLO(1e-9, 100)
    points = asyncio.run(load.sweep(vllm, loose, 4, 16, 8, seconds=1, factor=2, max_runs=2))
    assert [point.rate for point in points] == [4, 8]
    assert all(point.share(loose) == 1 for point in points)
    points = asyncio.run(load.sweep(vllm, impossible, 4, 16, 8, seconds=1))
    assert [(point.rate, point.share(impossible)) for point in points] == [(1, 0), (2, 0), (4, 0)]


def test_vllms_benchmark_measures_the_same_requests(vllm: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
    ):  # nothing listens there, and the server is on loopback
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
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
    with pytest.raises(load.LoadError, match=r"llama-3\.1-8b"):
        write_shape("gpt-9", tmp_path)
