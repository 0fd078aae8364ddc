"""Prometheus text: named as served, summed over labels, subtracted."""

from __future__ import annotations

import pytest

from engineroom.metrics.prometheus import Metrics, parse, total

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
# HELP nv_inference_request_success Triton's counters do not end with _total
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="a b",version="1"} 5
"""


def vllm(text: str = TEXT) -> Metrics:
    return total(parse(text), "vllm:")


def test_values_are_summed_over_labels_without_buckets() -> None:
    assert dict(vllm()) == {"generation_tokens_total": 120.0, "ttft_sum": 4.5, "ttft_count": 3.0}
    assert total(parse(TEXT))["python_gc_total"] == 7


def test_samples_have_the_server_s_names_and_labels() -> None:
    *_, success = parse(TEXT)
    assert success.name == "nv_inference_request_success"
    assert (success.labels, success.value) == ({"model": "a b", "version": "1"}, 5.0)


def test_only_the_samples_of_these_names_are_parsed() -> None:
    assert [sample.value for sample in parse(TEXT, {"vllm:generation_tokens_total", "vllm:ttft"})] == [
        100,
        20,
    ]


@pytest.mark.parametrize("text", ["<html>", "vllm:ttft_sum four"])
def test_text_in_another_format_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_difference_has_the_seconds_between() -> None:
    before = vllm()
    after = vllm(TEXT.replace("100.0", "150.0"))
    assert (after - before)["generation_tokens_total"] == 50
    assert (after - before).time == pytest.approx(after.time - before.time)


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(KeyError, match="generation_tokens_total"):
        vllm()["generation_token"]
