"""Workloads as a person types them."""

from __future__ import annotations

import pytest

from engineroom.compare import BatchWorkload, CompareError


@pytest.mark.parametrize("text", ["16", "16x128", "0x128-64", "16x128-64-2", ""])
def test_a_malformed_workload_is_refused(text: str) -> None:
    with pytest.raises(CompareError, match="16x128-64"):
        BatchWorkload.parse(text)


def test_workloads_are_read_and_written() -> None:
    assert BatchWorkload.parse(" 16x128-64") == BatchWorkload(16, 128, 64)
    assert BatchWorkload.parse_list("1x5-4,3x5-4") == [BatchWorkload(1, 5, 4), BatchWorkload(3, 5, 4)]
    assert str(BatchWorkload(16, 128, 64)) == "16x128-64"
    assert BatchWorkload(16, 128, 64).description == "16 streams, 128 tokens in, 64 out"
    assert BatchWorkload(1, 8, 4).description == "1 stream, 8 tokens in, 4 out"
