"""Requests written for NVIDIA's inflight_batcher_llm work: its names, shapes and types, over HTTP and gRPC."""

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
from tests.engineroom.triton.conftest import infer_inputs, stream

PROMPTS = ["The KV cache", "One two three four five six seven", "Copy: engine room", "A"]
TEXT_MODELS = ("ensemble", "tensorrt_llm_bls")
MODELS = {*TEXT_MODELS, "preprocessing", "tensorrt_llm", "postprocessing"}


def generate(triton: Triton, model: str, **body: Any) -> dict[str, Any]:
    url = f"{triton.url}/v2/models/{model}/generate"
    return httpx.post(url, json=body, trust_env=False, timeout=60).raise_for_status().json()


def expected(executor: Executor, vocabulary: Vocabulary, prompt: str, **params: Any) -> list[int]:
    defaults = {"max_tokens": 24, "end_id": vocabulary.tokenizer.eos_token_id}
    return executor.generate([vocabulary.encode(prompt)], SamplingParams(**defaults | params))[0]


def decode(vocabulary: Vocabulary, token_ids: list[int]) -> str:
    return vocabulary.tokenizer.decode(token_ids, skip_special_tokens=True)


def test_all_five_models_are_ready_with_the_published_tensors(triton: Triton) -> None:
    with InferenceServerClient(triton.grpc) as client:
        assert {model.name for model in client.get_model_repository_index().models} == MODELS
        metadata = client.get_model_metadata("tensorrt_llm")
        tensors = {
            tensor.name: (tensor.datatype, list(tensor.shape))
            for tensor in (*metadata.inputs, *metadata.outputs)
        }
        assert tensors["input_ids"] == ("INT32", [-1, -1]) and tensors["input_lengths"] == ("INT32", [-1, 1])
        assert tensors["seed"] == ("UINT64", [-1, 1]) and tensors["stop_words_list"] == ("INT32", [-1, 2, -1])
        assert tensors["output_ids"] == ("INT32", [-1, -1, -1]) and "min_tokens" in tensors
        assert client.get_model_config("tensorrt_llm").config.model_transaction_policy.decoupled


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_generate(triton: Triton, vocabulary: Vocabulary, executor: Executor, model: str) -> None:
    """The request of the backend's README. The prompt is in the output unless it is excluded."""
    for prompt in PROMPTS:
        token_ids = expected(executor, vocabulary, prompt)
        body = {"text_input": prompt, "max_tokens": 24, "bad_words": "", "stop_words": ""}
        whole_text = decode(vocabulary, [*vocabulary.encode(prompt), *token_ids])
        assert generate(triton, model, **body)["text_output"] == whole_text
        flags = {"exclude_input_in_output": True, "return_num_output_tokens": True}
        response = generate(triton, model, **body, **flags)
        assert response["text_output"] == decode(vocabulary, token_ids)
        assert response["num_output_tokens"] == len(token_ids)


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_empty_texts_are_no_words(triton: Triton, model: str) -> None:
    """NVIDIA's preprocessing leaves out words without tokens, and does without weights where there are no words."""
    body = {"text_input": PROMPTS[0], "max_tokens": 8}
    expected_text = generate(triton, model, **body)["text_output"]
    for change in (
        {"bad_words": "", "stop_words": ""},
        {"bad_words": ["", ""], "stop_words": [""]},
        {"embedding_bias_words": [""], "embedding_bias_weights": [1.0]},
        {"decoder_text_input": ""},
    ):
        assert generate(triton, model, **body | change)["text_output"] == expected_text
    stopped = generate(triton, model, **body, stop_words=["", "any text that is not in the answer"])
    assert stopped["text_output"] == expected_text


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_generate_stream(triton: Triton, vocabulary: Vocabulary, executor: Executor, model: str) -> None:
    token_ids = expected(executor, vocabulary, PROMPTS[1], max_tokens=200, end_id=None)
    body = {"text_input": PROMPTS[1], "max_tokens": 200, "end_id": -1, "stream": True}
    url = f"{triton.url}/v2/models/{model}/generate_stream"
    response = httpx.post(url, json=body, trust_env=False, timeout=60)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert "".join(event["text_output"] for event in events) == decode(vocabulary, token_ids)
    assert len(events) > 1  # tokens that arrive faster than they can be sent share a response


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_grpc_stream_as_nvidia_s_end_to_end_client_sends_it(
    triton: Triton, vocabulary: Vocabulary, executor: Executor, model: str
) -> None:
    sampling = {"top_k": 4, "temperature": 1.5}
    token_ids = expected(executor, vocabulary, PROMPTS[0], **sampling, seed=7)
    results = stream(
        triton, model, text_input=PROMPTS[0], max_tokens=24, bad_words="", stop_words="", stream=True,
        return_log_probs=True, beam_width=1, length_penalty=1.0, seed=np.array([[7]], np.uint64), **sampling,
    )  # fmt: skip
    texts = [result.as_numpy("text_output") for result in results]
    assert {text.shape for text in texts} == {(1,)}
    assert b"".join(text[0] for text in texts).decode() == decode(vocabulary, token_ids)
    logprobs = np.concatenate([result.as_numpy("output_log_probs")[0, 0] for result in results])
    assert len(logprobs) == len(token_ids)
    assert np.isclose(logprobs.sum(), results[-1].as_numpy("cum_log_probs")[0, 0], atol=1e-4)
    assert logprobs.max() <= 0 > logprobs.sum()


def test_tokens_in_and_tokens_out_equal_the_engine_s_own(
    triton: Triton, vocabulary: Vocabulary, executor: Executor
) -> None:
    for prompt in PROMPTS:
        input_ids = vocabulary.encode(prompt)
        token_ids = expected(executor, vocabulary, prompt, end_id=None)
        values = {"input_ids": input_ids, "input_lengths": len(input_ids), "request_output_len": 24}
        results = stream(triton, "tensorrt_llm", **values, streaming=True)
        streamed = np.concatenate([result.as_numpy("output_ids")[0, 0] for result in results])
        assert streamed.tolist() == token_ids
        [result] = stream(triton, "tensorrt_llm", **values, return_num_input_tokens=True)
        assert result.as_numpy("output_ids").tolist() == [[input_ids + token_ids]]
        assert result.as_numpy("sequence_length").tolist() == [[len(input_ids) + 24]]
        assert result.as_numpy("num_input_tokens").tolist() == [[len(input_ids)]]
        stop_word = token_ids[3:5]
        stop_words = np.array([[stop_word, [2, -1]]], np.int32)
        [result] = stream(
            triton, "tensorrt_llm", **values, stop_words_list=stop_words, exclude_input_in_output=True
        )
        end = next(end for end in range(2, 25) if token_ids[end - 2 : end] == stop_word)
        assert result.as_numpy("output_ids").tolist() == [[token_ids[:end]]]


def test_pre_and_postprocessing_by_themselves(triton: Triton, vocabulary: Vocabulary) -> None:
    with InferenceServerClient(triton.grpc) as client:
        stop_words = np.array([[b"seven", b"engine room"]], object)
        inputs = infer_inputs(QUERY=PROMPTS[1], REQUEST_OUTPUT_LEN=5, STOP_WORDS_DICT=stop_words)
        result = client.infer("preprocessing", inputs)
        assert result.as_numpy("INPUT_ID").tolist() == [vocabulary.encode(PROMPTS[1])]
        assert result.as_numpy("OUT_END_ID").tolist() == [[vocabulary.tokenizer.eos_token_id]]
        seven, engine_room = (
            vocabulary.tokenizer.encode(word, add_special_tokens=False) for word in ("seven", "engine room")
        )
        token_ids, ends = result.as_numpy("STOP_WORDS_IDS")[0].tolist()
        assert token_ids == [*seven, *engine_room]
        assert ends[:2] == [len(seven), len(token_ids)] and set(ends[2:]) <= {-1}
        assert result.as_numpy("BAD_WORDS_IDS").shape == (1, 2, 0)
        batch = np.array([[[*vocabulary.encode(PROMPTS[1]), 0, 0]]], np.int32)  # [batch, beams, num_tokens]
        lengths = np.array([[batch.shape[2] - 2]], np.int32)
        result = client.infer("postprocessing", infer_inputs(TOKENS_BATCH=batch, SEQUENCE_LENGTH=lengths))
        assert result.as_numpy("OUTPUT").tolist() == [PROMPTS[1].encode()]
