"""Malformed requests: always an error that says what is wrong, never a crash, and the next request is answered."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.model_config_pb2 import DataType
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from engineroom.engine.runtime.request import RequestError
from engineroom.triton.backend.request import TritonRequest, parse_request
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import stream
from tests.engineroom.triton.streams import settled

TEXT_MODELS = ("ensemble", "tensorrt_llm_bls")
TEXT_REQUEST = {"text_input": "One two three", "max_tokens": 3}
TOKEN_REQUEST = {"input_ids": [5, 6], "input_lengths": 2, "request_output_len": 3}


def post(triton: Triton, model: str, body: bytes) -> tuple[int, str]:
    url = f"{triton.url}/v2/models/{model}/generate"
    response = httpx.post(url, content=body, trust_env=False, timeout=60)
    return response.status_code, response.json().get("error", "")


@pytest.mark.parametrize(
    ("change", "expected"),
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
        ({"repetition_penalty": -1.0}, "repetition_penalty is -1.0"),
        ({"return_context_logits": True}, "return_context_logits"),
        ({"bad_words": ["", "no"]}, "bad_words"),
        ({"embedding_bias_words": ["no"]}, "embedding_bias_words"),
        ({"decoder_text_input": "no"}, "decoder_text_input"),
        ({"lora_task_id": 3}, "lora_task_id"),
        ({"guided_decoding_guide": "no"}, "guided_decoding_guide"),
    ],
)
def test_a_value_that_this_engine_does_not_take_is_named(
    triton: Triton, change: dict[str, Any], expected: str
) -> None:
    for model in TEXT_MODELS:
        status, error = post(triton, model, json.dumps(TEXT_REQUEST | change).encode())
        assert status == 400 and expected in error


@pytest.mark.parametrize("missing", list(TEXT_REQUEST))
def test_a_missing_field_is_named(triton: Triton, missing: str) -> None:
    body = {key: value for key, value in TEXT_REQUEST.items() if key != missing}
    for model in TEXT_MODELS:
        status, error = post(triton, model, json.dumps(body).encode())
        assert status == 400 and f"missing required input(s) ['{missing}']" in error


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"\xff\xfe", b"[1]", b'{"text_input": 5, "max_tokens": 3}', b'{"text_input": "\\ud800"}', b"[" * 9999],
)  # fmt: skip
def test_what_triton_itself_cannot_parse(triton: Triton, body: bytes) -> None:
    """Triton 2.51 responds with 500 and its parser's message; the OpenAI frontend names the field."""
    for model in TEXT_MODELS:
        status, error = post(triton, model, body)
        assert status in (400, 500) and error
        assert post(triton, model, json.dumps(TEXT_REQUEST).encode()) == (200, "")


@pytest.mark.parametrize(
    ("change", "expected"),
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
def test_wrong_bytes_types_and_shapes_over_grpc(
    triton: Triton, change: dict[str, Any], expected: str
) -> None:
    for model in TEXT_MODELS:
        with pytest.raises(InferenceServerException, match=expected):
            stream(triton, model, **TEXT_REQUEST | change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"input_ids": [5, 4096]}, "the vocabulary has 4096 tokens"),
        ({"input_ids": [-5, 5]}, "input_ids has token -5"),
        ({"input_lengths": 3}, "input_lengths is 3"),
        ({"input_lengths": -1}, "input_lengths is -1"),
        ({"stop_words_list": np.array([[[5, 6], [9, -1]]], np.int32)}, r"stop_words_list has ends \[9\]"),
        ({"stop_words_list": np.array([[5, 6]], np.int32)}, "stop_words_list"),
        ({"runtime_top_p": 2.0}, "runtime_top_p"),
        ({"lora_task_id": np.array([[4]], np.uint64)}, "lora_task_id"),
        ({"min_tokens": 10**6}, "min_tokens is 1000000"),
        ({"prompt_embedding_table": np.zeros((1, 2, 2), np.float16)}, "prompt_embedding_table"),
    ],
)
def test_wrong_tokens(triton: Triton, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(InferenceServerException, match=expected):
        stream(triton, "tensorrt_llm", **TOKEN_REQUEST | change)


TENSOR_NAMES = [
    "input_ids",
    "input_lengths",
    "request_output_len",
    "temperature",
    "runtime_top_k",
    "runtime_top_p",
    "seed",
]
TENSOR_NAMES += ["end_id", "stop_words_list", "streaming", "beam_width", "lora_weights", "embedding_bias"]
ARRAYS = st.builds(
    lambda shape, dtype, seed: np.random.default_rng(seed).integers(-3, 300, shape).astype(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([np.int32, np.float32, np.uint64, bool]),
    st.integers(0, 9),
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(TENSOR_NAMES), ARRAYS))
def test_any_tensors_are_a_request_or_an_error_that_names_one(tensors: dict[str, Any]) -> None:
    try:
        assert isinstance(parse_request(tensors, 300), TritonRequest)
    except RequestError as error:
        assert any(name in str(error) for name in TENSOR_NAMES)


DTYPES = ["i4", "i8", "u8", "u1", "f2", "f4", "f8", "?", "O"]
SHAPES = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def tensor(draw: st.DrawFn, dtype: str, shape: list[int]) -> NDArray[Any]:
    """Small, extreme and infinite numbers, NaN, and bytes that are not UTF-8."""
    array = np.empty(shape, dtype)
    if array.dtype.kind == "O":
        values = st.binary(max_size=4) | st.text(max_size=4).map(str.encode)
    elif array.dtype.kind == "f":
        values = st.floats(width=array.itemsize * 8)
    elif array.dtype.kind == "b":
        values = st.booleans()
    else:
        bounds = np.iinfo(array.dtype)
        values = st.integers(bounds.min, bounds.max) | st.integers(max(-3, bounds.min), 5)
    array.flat[:] = draw(st.lists(values, min_size=array.size, max_size=array.size))
    return array


def published(triton: Triton, model: str) -> dict[str, tuple[str, list[int]]]:
    """The inputs of a model by name: NumPy's letters for the type, and dims as in config.pbtxt."""
    with InferenceServerClient(triton.grpc) as client:
        inputs = client.get_model_config(model).config.input
    tensors = {}
    for tensor in inputs:
        triton_dtype = DataType.Name(tensor.data_type).removeprefix("TYPE_").replace("STRING", "BYTES")
        tensors[tensor.name] = (np.dtype(triton_to_np_dtype(triton_dtype)).str, list(tensor.dims))
    return tensors


def any_tensor(inputs: dict[str, tuple[str, list[int]]]) -> st.SearchStrategy[tuple[str, NDArray[Any]]]:
    """A name with a tensor, either of the published type and shape or of any type and shape."""

    def as_published(name: str) -> st.SearchStrategy[tuple[str, NDArray[Any]]]:
        dtype, dims = inputs[name]
        shape = st.tuples(*(st.integers(0, 3) if size < 0 else st.just(size) for size in [1, *dims]))
        return st.tuples(st.just(name), shape.flatmap(lambda size: tensor(dtype, list(size))))

    names = st.sampled_from(sorted(inputs))
    wrong = st.tuples(st.sampled_from(DTYPES), SHAPES).flatmap(lambda pair: tensor(*pair))
    return names.flatmap(as_published) | st.tuples(st.sampled_from(["nonsense", *sorted(inputs)]), wrong)


@pytest.mark.parametrize("model", ["tensorrt_llm", *TEXT_MODELS])
def test_whatever_tensors_come_over_grpc(triton: Triton, model: str) -> None:
    """A response, or an error that names an input; the next request is answered, and no blocks stay in use.

    Two kinds of request get no output. Triton 2.51 itself ends an ensemble request without a response when a required
    input is missing but the number of inputs is right, and `stop` has no output in NVIDIA's contract.
    """
    inputs = published(triton, model)
    valid_request = TEXT_REQUEST if model in TEXT_MODELS else TOKEN_REQUEST
    endings: Counter[str] = Counter()

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(any_tensor(inputs), max_size=3).map(dict),
        st.none() | st.none() | st.sampled_from(sorted(valid_request)),
    )
    def send(changed: dict[str, Any], missing: str | None) -> None:
        request = {name: value for name, value in valid_request.items() if name != missing} | changed
        no_output = "stop" in request or (model == "ensemble" and missing and missing not in changed)
        try:
            assert stream(triton, model, **request) or no_output
            endings["answered"] += 1
        except InferenceServerException as error:
            words = set(re.findall(r"\w+", error.message()))
            assert words & {*inputs, *request, "prompt"}, error
            endings["refused"] += 1

    send()
    assert len(endings) == 2
    assert stream(triton, model, **valid_request)
    assert settled(triton) == (0, 0, 0)
