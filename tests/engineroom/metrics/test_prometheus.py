"""vLLM's counters: parsed, summed over labels, subtracted."""

from __future__ import annotations

import pytest

from engineroom.metrics.prometheus import parse

TEXT = """\
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0"} 100.0
vllm:generation_tokens_total{engine="1"} 20.0
# TYPE vllm:ttft histogram
vllm:ttft_bucket{le="1.0"} 3.0
vllm:ttft_sum 4.5
vllm:ttft_count 3.0
# TYPE python_gc_total counter
python_gc_total 7.0
"""


def test_values_are_summed_over_labels_without_buckets() -> None:
    assert dict(parse(TEXT)) == {"generation_tokens_total": 120.0, "ttft_sum": 4.5, "ttft_count": 3.0}


def test_a_difference_has_the_seconds_between() -> None:
    before = parse(TEXT)
    after = parse(TEXT.replace("100.0", "150.0"))
    assert (after - before)["generation_tokens_total"] == 50
    assert (after - before).time == pytest.approx(after.time - before.time)


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(KeyError, match="generation_tokens_total"):
        parse(TEXT)["generation_token"]
