"""Requests as they are written for NVIDIA's inflight_batcher_llm: by name, shape and type, over HTTP and gRPC."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.openai.text import Vocabulary
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import inputs, stream

PROMPTS = ["The KV cache", "One two three four five six seven", "Copy: engine room", "A"]
TEXT = ("ensemble", "tensorrt_llm_bls")
MODELS = {*TEXT, "preprocessing", "tensorrt_llm", "postprocessing"}


def generate(triton: Triton, model: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{triton.url}/v2/models/{model}/generate", json=body, trust_env=False, timeout=60)
    return answer.raise_for_status().json()


def expected(alone: Executor, vocabulary: Vocabulary, prompt: str, **params: Any) -> list[int]:
    ends = {"max_tokens": 24, "end_id": vocabulary.tokenizer.eos_token_id}
    return alone.generate([vocabulary.encode(prompt)], SamplingParams(**ends | params))[0]


def text(vocabulary: Vocabulary, tokens: list[int]) -> str:
    return vocabulary.tokenizer.decode(tokens, skip_special_tokens=True)


def test_all_five_models_are_ready_with_the_published_tensors(triton: Triton) -> None:
    with InferenceServerClient(triton.grpc) as client:
        assert {model.name for model in client.get_model_repository_index().models} == MODELS
        found = client.get_model_metadata("tensorrt_llm")
        kinds = {
            tensor.name: (tensor.datatype, list(tensor.shape)) for tensor in (*found.inputs, *found.outputs)
        }
        assert kinds["input_ids"] == ("INT32", [-1, -1]) and kinds["input_lengths"] == ("INT32", [-1, 1])
        assert kinds["seed"] == ("UINT64", [-1, 1]) and kinds["stop_words_list"] == ("INT32", [-1, 2, -1])
        assert kinds["output_ids"] == ("INT32", [-1, -1, -1]) and "min_tokens" in kinds
        assert client.get_model_config("tensorrt_llm").config.model_transaction_policy.decoupled


@pytest.mark.parametrize("model", TEXT)
def test_generate(triton: Triton, vocabulary: Vocabulary, alone: Executor, model: str) -> None:
    """The request of the backend's README; the prompt comes back unless it is excluded."""
    for prompt in PROMPTS:
        tokens = expected(alone, vocabulary, prompt)
        body = {"text_input": prompt, "max_tokens": 24, "bad_words": "", "stop_words": ""}
        said = text(vocabulary, [*vocabulary.encode(prompt), *tokens])
        assert generate(triton, model, **body)["text_output"] == said
        short = generate(triton, model, **body, exclude_input_in_output=True, return_num_output_tokens=True)
        assert (short["text_output"], short["num_output_tokens"]) == (text(vocabulary, tokens), len(tokens))


@pytest.mark.parametrize("model", TEXT)
def test_generate_stream(triton: Triton, vocabulary: Vocabulary, alone: Executor, model: str) -> None:
    tokens = expected(alone, vocabulary, PROMPTS[1], max_tokens=200, end_id=None)
    body = {"text_input": PROMPTS[1], "max_tokens": 200, "end_id": -1, "stream": True}
    url = f"{triton.url}/v2/models/{model}/generate_stream"
    answer = httpx.post(url, json=body, trust_env=False, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "".join(event["text_output"] for event in events) == text(vocabulary, tokens)
    assert len(events) > 1  # tokens that come faster than they can be sent travel together


@pytest.mark.parametrize("model", TEXT)
def test_grpc_stream_as_nvidia_s_end_to_end_client_sends_it(
    triton: Triton, vocabulary: Vocabulary, alone: Executor, model: str
) -> None:
    asked = {"top_k": 4, "temperature": 1.5, "seed": np.array([[7]], np.uint64)}
    drawn = {"top_k": 4, "temperature": 1.5, "seed": 7}
    tokens = expected(alone, vocabulary, PROMPTS[0], **drawn)
    found = stream(
        triton, model, text_input=PROMPTS[0], max_tokens=24, bad_words="", stop_words="", stream=True,
        return_log_probs=True, beam_width=1, length_penalty=1.0, **asked,
    )  # fmt: skip
    assert {result.as_numpy("text_output").shape for result in found} == {(1,)}
    assert b"".join(result.as_numpy("text_output")[0] for result in found).decode() == text(
        vocabulary, tokens
    )
    parts = np.concatenate([result.as_numpy("output_log_probs")[0, 0] for result in found])
    assert len(parts) == len(tokens) and np.isclose(
        parts.sum(), found[-1].as_numpy("cum_log_probs")[0, 0], atol=1e-4
    )
    assert parts.max() <= 0 > parts.sum()


def test_tokens_in_and_tokens_out_equal_the_engine_s_own(
    triton: Triton, vocabulary: Vocabulary, alone: Executor
) -> None:
    for prompt in PROMPTS:
        ids, tokens = vocabulary.encode(prompt), expected(alone, vocabulary, prompt, end_id=None)
        ask = {"input_ids": ids, "input_lengths": len(ids), "request_output_len": 24}
        found = stream(triton, "tensorrt_llm", **ask, streaming=True)
        assert [one for result in found for one in result.as_numpy("output_ids")[0, 0].tolist()] == tokens
        [whole] = stream(triton, "tensorrt_llm", **ask, return_num_input_tokens=True)
        assert whole.as_numpy("output_ids").tolist() == [[ids + tokens]]
        assert whole.as_numpy("sequence_length").tolist() == [[len(ids) + 24]]
        assert whole.as_numpy("num_input_tokens").tolist() == [[len(ids)]]
        stop = np.array([[tokens[3:5], [2, -1]]], np.int32)
        [cut] = stream(triton, "tensorrt_llm", **ask, stop_words_list=stop, exclude_input_in_output=True)
        first = next(n for n in range(2, 25) if tokens[n - 2 : n] == tokens[3:5])
        assert cut.as_numpy("output_ids").tolist() == [[tokens[:first]]]


def test_pre_and_postprocessing_by_themselves(triton: Triton, vocabulary: Vocabulary) -> None:
    with InferenceServerClient(triton.grpc) as client:
        words = np.array([[b"seven", b"engine room"]], object)
        made = client.infer(
            "preprocessing", inputs(QUERY=PROMPTS[1], REQUEST_OUTPUT_LEN=5, STOP_WORDS_DICT=words)
        )
        assert made.as_numpy("INPUT_ID").tolist() == [vocabulary.encode(PROMPTS[1])]
        assert made.as_numpy("OUT_END_ID").tolist() == [[vocabulary.tokenizer.eos_token_id]]
        stops = [
            vocabulary.tokenizer.encode(word, add_special_tokens=False) for word in ("seven", "engine room")
        ]
        flat, ends = made.as_numpy("STOP_WORDS_IDS")[0].tolist()
        assert (
            flat == [*stops[0], *stops[1]]
            and ends[:2] == [len(stops[0]), len(flat)]
            and set(ends[2:]) <= {-1}
        )
        assert made.as_numpy("BAD_WORDS_IDS").shape == (1, 2, 0)
        tokens = np.array([[[*vocabulary.encode(PROMPTS[1]), 0, 0]]], np.int32)
        lengths = np.array([[tokens.shape[2] - 2]], np.int32)
        text = client.infer("postprocessing", inputs(TOKENS_BATCH=tokens, SEQUENCE_LENGTH=lengths))
        assert text.as_numpy("OUTPUT").tolist() == [PROMPTS[1].encode()]
