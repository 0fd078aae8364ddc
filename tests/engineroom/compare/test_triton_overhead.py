"""What measures the overhead: real answers are timed, one of another length is an error, ratios are within a round."""

from __future__ import annotations

import asyncio

import pytest

from engineroom.compare.triton_overhead import ratios, through_triton, timed
from engineroom.triton.client import TritonBackend
from engineroom.triton.server import Triton


def test_answers_through_triton_are_timed(triton: Triton) -> None:
    backend = TritonBackend(triton.grpc, triton.url, triton.metrics)
    first, rate = asyncio.run(through_triton(backend, [[300, 301], [302, 303]], 5))
    seconds = 10 / rate  # ten tokens in all
    assert 0 < first <= seconds * 1.000001


def test_an_answer_of_another_length_is_no_measurement() -> None:
    async def two(prompt: list[int]):
        for token in prompt:
            yield token

    with pytest.raises(RuntimeError, match="an answer has 2 tokens, asked were 3"):
        asyncio.run(timed(two, [[1, 2]], 3))


def test_ratios_are_to_the_engine_of_the_same_round_and_load() -> None:
    samples = {"engine, 1 stream": [2.0, 4.0], "engine, 8 streams": [1.0, 1.0]}
    samples |= {"Triton, gRPC, 1 stream": [3.0, 4.0], "Triton, gRPC, 8 streams": [0.5, 2.0]}
    assert ratios(samples) == {"Triton, gRPC, 1 stream": [1.5, 1.0], "Triton, gRPC, 8 streams": [0.5, 2.0]}
