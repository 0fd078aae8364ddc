"""The arithmetic of lesson 11 agrees with the library's counts and roofline."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.checkpoint.config import from_hugging_face
from engineroom.load.shape import SHAPES
from engineroom.profile.counts import Count, Step, count_step
from engineroom.profile.roofline import Roof, place
from labs.profile.checks import STEPS
from labs.profile.formulas import Config, attainable, share_of_roof, step_bytes, step_operations

LEFT_OUT = 0.01  # of the library's count: norms, rows of the embedding, new keys and values
POSITIVE = st.floats(1e-3, 1e15)


@pytest.mark.parametrize("config", [SHAPES["llama-3.1-8b"], *(arguments[0] for arguments in STEPS.values())])
@pytest.mark.parametrize(("batch", "context"), [(1, 256), (16, 256), (7, 4096)])
def test_a_step_is_counted_as_the_library_counts_it(config: Config, batch: int, context: int) -> None:
    llama = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
    model = from_hugging_face({**llama, "dtype": "bfloat16", **config}, Path("model"))
    count = count_step(model, Step.generation([context - 1] * batch))
    assert step_operations(config, batch, context) == count.operations
    assert step_bytes(config, batch, context, 2) == pytest.approx(count.num_bytes, rel=LEFT_OUT)
    assert step_bytes(config, batch, context, 2) < count.num_bytes


@given(operations=st.integers(1, 10**15), num_bytes=st.integers(1, 10**12), seconds=POSITIVE)
@pytest.mark.parametrize(("bandwidth", "matrix_rate"), [(2e10, 9e11), (3.35e12, 9.9e14)])
def test_the_roof_is_the_library_s(
    operations: int, num_bytes: int, seconds: float, bandwidth: float, matrix_rate: float
) -> None:
    point = place(Count(operations, num_bytes), seconds, Roof(bandwidth, matrix_rate))
    assert attainable(operations, num_bytes, bandwidth, matrix_rate) == pytest.approx(
        point.attainable_operations_per_s
    )
    assert share_of_roof(operations, num_bytes, seconds, bandwidth, matrix_rate) == pytest.approx(
        point.share_of_roof
    )
