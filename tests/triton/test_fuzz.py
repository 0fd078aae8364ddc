"""What is no request: always an error that says what was wrong, never a crash, and the next request is answered."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from labs.engine.runtime.scheduler import RequestError
from labs.triton import Triton
from labs.triton.request import Asked, read, word_list, words
from tests.triton.conftest import stream

TEXT = ("ensemble", "tensorrt_llm_bls")
GOOD = {"text_input": "One two three", "max_tokens": 3}
IDS = {"input_ids": [5, 6], "input_lengths": 2, "request_output_len": 3}


def post(triton: Triton, model: str, body: bytes) -> tuple[int, str]:
    answer = httpx.post(f"{triton.url}/v2/models/{model}/generate", content=body, trust_env=False, timeout=20)
    return answer.status_code, answer.json().get("error", "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**31 - 1}, "max_seq_len is 256"),
        ({"text_input": "One two " * 200}, "max_input_len is 192"),
        ({"text_input": ""}, "the prompt is empty"),
        ({"text_input": ["a", "b"]}, "text_input"),
        ({"temperature": -1.0, "top_k": 3}, "temperature is -1.0"),
        ({"temperature": float("nan"), "top_k": 3}, "temperature is nan"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"beam_width": 2}, "beam_width"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"repetition_penalty": 1.5}, "repetition_penalty"),
        ({"return_context_logits": True}, "return_context_logits"),
        ({"bad_words": ["no"]}, "bad_words"),
        ({"embedding_bias_words": ["no"]}, "embedding_bias_words"),
        ({"decoder_text_input": "no"}, "decoder_text_input"),
        ({"lora_task_id": 3}, "lora_task_id"),
        ({"guided_decoding_guide": "no"}, "guided_decoding_guide"),
    ],
)
def test_a_value_that_this_engine_does_not_take_is_named(
    triton: Triton, change: dict[str, Any], words: str
) -> None:
    for model in TEXT:
        status, said = post(triton, model, json.dumps(GOOD | change).encode())
        assert status == 400 and words in said


@pytest.mark.parametrize("missing", list(GOOD))
def test_a_missing_field_is_named(triton: Triton, missing: str) -> None:
    body = {key: value for key, value in GOOD.items() if key != missing}
    for model in TEXT:
        status, said = post(triton, model, json.dumps(body).encode())
        assert status == 400 and f"missing required input(s) ['{missing}']" in said


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff\xfe", b"[1]", b'{"text_input": 5, "max_tokens": 3}', b'{"text_input": "\\ud800"}', b"[" * 9999],
)  # fmt: skip
def test_what_triton_itself_cannot_parse(triton: Triton, body: bytes) -> None:
    """Triton 2.51 answers 500 with its parser's words; the front door before it names the field."""
    for model in TEXT:
        status, said = post(triton, model, body)
        assert status in (400, 500) and said
        assert post(triton, model, json.dumps(GOOD).encode()) == (200, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_input": np.array([[b"\xff\xfe"]], object)}, "text_input.*byte 0 is not UTF-8"),
        ({"stop_words": np.array([[b"a\xff"]], object)}, "stop_words.*byte 1 is not UTF-8"),
        ({"max_tokens": np.array([[3]], np.int64)}, "'max_tokens' data-type is 'INT64'.* expects 'INT32'"),
        ({"max_tokens": np.array([3], np.int32)}, "unexpected shape for input 'max_tokens'"),
        ({"text_input": np.array([b"a"], object)}, "unexpected shape for input 'text_input'"),
        ({"text_input": np.array([["a"], ["b"]], object), "max_tokens": np.array([[3], [3]], np.int32)}, "2 texts"),
        ({"nonsense": 5}, "unexpected inference input 'nonsense'"),
    ],
)  # fmt: skip
def test_wrong_bytes_types_and_shapes_over_grpc(triton: Triton, change: dict[str, Any], words: str) -> None:
    for model in TEXT:
        with pytest.raises(InferenceServerException, match=words):
            stream(triton, model, **GOOD | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_ids": [5, 4096]}, "the vocabulary has 4096 tokens"),
        ({"input_ids": [-5, 5]}, "input_ids has token -5"),
        ({"input_lengths": 3}, "input_lengths is 3"),
        ({"input_lengths": -1}, "input_lengths is -1"),
        ({"stop_words_list": np.array([[[5, 6], [9, -1]]], np.int32)}, r"stop_words_list has ends \[9\]"),
        ({"stop_words_list": np.array([[5, 6]], np.int32)}, "stop_words_list"),
        ({"runtime_top_p": 2.0}, "runtime_top_p"),
        ({"lora_task_id": np.array([[4]], np.uint64)}, "lora_task_id"),
        ({"min_tokens": 2}, "min_tokens is 2"),
        ({"prompt_embedding_table": np.zeros((1, 2, 2), np.float16)}, "prompt_embedding_table"),
    ],
)
def test_wrong_tokens(triton: Triton, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InferenceServerException, match=words):
        stream(triton, "tensorrt_llm", **IDS | change)


NAMES = [
    "input_ids",
    "input_lengths",
    "request_output_len",
    "temperature",
    "runtime_top_k",
    "runtime_top_p",
    "seed",
]
NAMES += ["end_id", "stop_words_list", "streaming", "beam_width", "lora_weights", "embedding_bias"]
ARRAYS = st.builds(
    lambda shape, kind, seed: np.random.default_rng(seed).integers(-3, 300, shape).astype(kind),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([np.int32, np.float32, np.uint64, bool]),
    st.integers(0, 9),
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(NAMES), ARRAYS))
def test_any_tensors_are_a_request_or_an_error_that_names_one(tensors: dict[str, Any]) -> None:
    try:
        assert isinstance(read(tensors, 300), Asked)
    except RequestError as error:
        assert any(name in str(error) for name in NAMES)


@given(st.lists(st.lists(st.integers(0, 4095), min_size=1, max_size=5), max_size=5))
def test_a_word_list_is_read_as_it_was_written(sequences: list[list[int]]) -> None:
    assert words(word_list(sequences)) == tuple(map(tuple, sequences))
