"""Measuring the overhead: real answers are timed, one of another length is an error, ratios are within a round."""

from __future__ import annotations

import asyncio

import pytest

from engineroom.compare.settings import CompareError
from engineroom.compare.triton_overhead import parse_streams, ratios, time_streams, time_triton
from engineroom.triton.client import TritonBackend
from engineroom.triton.server import Triton


def test_answers_through_triton_are_timed(triton: Triton) -> None:
    backend = TritonBackend(triton.grpc, triton.url, triton.metrics)
    timings = asyncio.run(time_triton(backend, [[300, 301], [302, 303]], 5))
    seconds = 10 / timings.rate  # ten tokens in all
    assert 0 < timings.ttft <= seconds * 1.000001


def test_an_answer_of_another_length_is_no_measurement() -> None:
    async def echo(prompt: list[int]):
        for token_id in prompt:
            yield token_id

    with pytest.raises(CompareError, match="an answer has 2 tokens, expected 3"):
        asyncio.run(time_streams(echo, [[1, 2]], 3))


def test_ratios_are_to_the_engine_in_the_same_round_with_as_many_streams() -> None:
    samples = {"engine, 1 stream": [2.0, 4.0], "engine, 8 streams": [1.0, 1.0]}
    samples |= {"Triton, gRPC, 1 stream": [3.0, 4.0], "Triton, gRPC, 8 streams": [0.5, 2.0]}
    assert ratios(samples) == {"Triton, gRPC, 1 stream": [1.5, 1.0], "Triton, gRPC, 8 streams": [0.5, 2.0]}


@pytest.mark.parametrize("text", ["", "1,", "0", "1,x", "-1"])
def test_streams_that_are_no_numbers_are_refused(text: str) -> None:
    assert parse_streams("1, 8,32") == [1, 8, 32]
    with pytest.raises(CompareError, match=r"--streams '.*': expected numbers from 1 up"):
        parse_streams(text)
