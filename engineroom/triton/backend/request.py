"""Parse a request from the tensors of `tensorrt_llm`, and build the tensors of its responses.

Names, defaults and meaning follow inflight_batcher_llm/tensorrt_llm/config.pbtxt of TensorRT-LLM 1.2 and its executor's
SamplingConfig. A tensor that would change the output and that this engine does not support is refused by name, never
ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engineroom.engine.runtime.request import RequestError, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.triton.backend.perf_metrics import PERF_METRICS, perf_tensors

Tensors = Mapping[str, NDArray[Any]]
FLAGS = (
    "streaming", "exclude_input_in_output", "return_log_probs", "return_num_input_tokens", "return_num_output_tokens",
    "return_perf_metrics",
)  # fmt: skip
SUPPORTED = {
    "input_ids", "input_lengths", "request_output_len", "end_id", "stop_words_list", "temperature", "seed",
    "runtime_top_k", "runtime_top_p", "stop", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "min_tokens", *FLAGS,
}  # fmt: skip
# These have no effect here: padding, a decoder's own prompt, and settings that only a beam search reads.
WITHOUT_EFFECT = {"pad_id", "decoder_input_ids", "decoder_input_lengths", "len_penalty", "early_stopping"}
# Each of these is accepted with the one value that does not change the output.
NEUTRAL_VALUES = {
    "beam_width": 1, "num_return_sequences": 1, "beam_search_diversity_rate": 0, "return_context_logits": 0,
    "return_generation_logits": 0,
}  # fmt: skip
# What error messages call a sampling parameter: the tensor here, and in brackets the name in the text models.
TENSOR_NAMES = {
    "max_tokens": "request_output_len (max_tokens)",
    "top_k": "runtime_top_k (top_k)",
    "top_p": "runtime_top_p (top_p)",
}


@dataclass(frozen=True)
class TritonRequest:
    """One request: `token_ids` and `params` are for the engine, the flags say what the responses contain."""

    token_ids: list[int]
    params: SamplingParams
    streaming: bool = False
    exclude_input_in_output: bool = False
    return_log_probs: bool = False
    return_num_input_tokens: bool = False
    return_num_output_tokens: bool = False
    return_perf_metrics: bool = False


def parse_request(tensors: Tensors, vocab_size: int, exclude_input_in_output: bool = False) -> TritonRequest:
    """A request of one sequence; each tensor has shape [1, …], or its shape without the batch dimension.

    `exclude_input_in_output` is the default for a request without that tensor. Raises RequestError, which names the
    tensor.
    """
    _check_supported(tensors)
    flags = {name: bool(_scalar(tensors, name, False)) for name in FLAGS}
    if "exclude_input_in_output" not in tensors:
        flags["exclude_input_in_output"] = exclude_input_in_output
    params = _sampling_params(tensors, flags["return_log_probs"])
    return TritonRequest(_prompt(tensors, vocab_size), params, **flags)


def _check_supported(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if name in SUPPORTED or name in WITHOUT_EFFECT or _changes_nothing(name, tensor):
            continue
        if name not in NEUTRAL_VALUES:
            raise RequestError(f"{name}: this engine does not support it. Leave it out.")
        if _scalar(tensors, name, None) != NEUTRAL_VALUES[name]:
            raise RequestError(
                f"{name} is {tensor.item()}: this engine supports only {NEUTRAL_VALUES[name]}. Leave it out."
            )


def _changes_nothing(name: str, tensor: NDArray[Any]) -> bool:
    """Whether a tensor is empty, a word list without words, as for `bad_words: ""`, or a bias of zeros."""
    if name == "bad_words_list":
        return not parse_word_list(tensor, name)
    return tensor.size == 0 or (name == "embedding_bias" and not tensor.any())


def _prompt(tensors: Tensors, vocab_size: int) -> list[int]:
    if "input_ids" not in tensors:
        raise RequestError("input_ids is missing; expected INT32 [1, num_tokens].")
    row = _only_row(tensors["input_ids"], "input_ids", 1)  # [num_tokens]
    length = _scalar(tensors, "input_lengths", len(row))
    if not 0 <= length <= len(row):
        raise RequestError(
            f"input_lengths is {length} and input_ids has {len(row)} tokens; expected a number from 0 to {len(row)}."
        )
    token_ids = [int(token_id) for token_id in row[:length]]
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise RequestError(f"input_ids has token {token_id}; the vocabulary has {vocab_size} tokens.")
    return token_ids


def _sampling_params(tensors: Tensors, logprobs: bool) -> SamplingParams:
    end_id = _scalar(tensors, "end_id", -1)
    values = {
        "max_tokens": _scalar(tensors, "request_output_len", 0),
        "temperature": float(_scalar(tensors, "temperature", 1.0)),
        "top_k": _scalar(tensors, "runtime_top_k", 0),
        "top_p": float(_scalar(tensors, "runtime_top_p", 0.0)),
        "seed": _scalar(tensors, "seed", None),
        "end_id": None if end_id < 0 else end_id,
        "stop_words": parse_word_list(tensors.get("stop_words_list"), "stop_words_list"),
        "logprobs": 0 if logprobs else None,
        "min_tokens": _scalar(tensors, "min_tokens", 0),
        "repetition_penalty": float(_scalar(tensors, "repetition_penalty", 1.0)),
        "presence_penalty": float(_scalar(tensors, "presence_penalty", 0.0)),
        "frequency_penalty": float(_scalar(tensors, "frequency_penalty", 0.0)),
    }
    return sampling_params(values, TENSOR_NAMES)


def sampling_params(values: dict[str, Any], tensor_names: Mapping[str, str]) -> SamplingParams:
    """SamplingParams as TensorRT-LLM reads them: greedy without top-k and top-p, and a `seed` from 0 to 2**64 - 1.

    `tensor_names`: the name of each parameter's tensor, for the error message. Raises RequestError for a value out of
    its range.
    """
    greedy, seed = not (values["top_k"] or values["top_p"]), values["seed"]
    values = values | {"top_p": values["top_p"] or 1.0}
    values["temperature"] = 0.0 if greedy else values["temperature"]
    values["seed"] = None if seed is None else int(np.uint64(seed).astype(np.int64))
    try:
        return SamplingParams(**values)
    except ValueError as error:
        name, explanation = str(error).split(" ", 1)
        raise RequestError(f"{tensor_names.get(name, name)} {explanation}") from None


def parse_word_list(tensor: NDArray[Any] | None, name: str) -> tuple[tuple[int, ...], ...]:
    """The token sequences of a word list, int32 [1, 2, num_tokens]; see `words.word_list`. `name` is the tensor's."""
    if tensor is None or tensor.size == 0:
        return ()
    rows = _only_row(tensor, name, 2)  # [2, num_tokens]
    if rows.shape[0] != 2:
        raise RequestError(f"{name} has shape {list(tensor.shape)}; expected [1, 2, num_tokens].")
    ends = [int(end) for end in rows[1] if end >= 0]
    is_rising = sorted(set(ends)) == ends
    if not is_rising or (ends and not 0 < ends[0] <= ends[-1] <= rows.shape[1]):
        raise RequestError(f"{name} has ends {ends}; expected rising numbers from 1 to {rows.shape[1]}.")
    starts = [0, *ends[:-1]]
    return tuple(tuple(map(int, rows[0, start:end])) for start, end in zip(starts, ends, strict=False))


def response_tensors(
    request: TritonRequest, outputs: Sequence[TokenOutput], first: int = 0
) -> dict[str, NDArray[Any]]:
    """The tensors of one response, which has the tokens from index `first` on; sums are over all `outputs`.

    `output_ids` int32 [1, 1, num_tokens] begins with the prompt, unless the prompt is excluded or the request streams.
    """
    prompt = [] if request.streaming or request.exclude_input_in_output else request.token_ids
    output_ids = [*prompt, *(output.token_id for output in outputs[first:])]
    logprobs = [output.logprob for output in outputs]
    values = {
        "output_ids": [[output_ids]],
        "sequence_length": [[len(output_ids)]],
        "batch_index": [[0]],
        "sequence_index": [[0]],
    }
    if request.return_num_input_tokens:
        values["num_input_tokens"] = [[len(request.token_ids)]]
    if request.return_num_output_tokens:
        values["num_output_tokens"] = [[len(outputs)]]
    tensors: dict[str, NDArray[Any]] = {name: np.array(value, np.int32) for name, value in values.items()}
    if request.return_log_probs:
        tensors["output_log_probs"] = np.array([[logprobs[first:]]], np.float32)  # [1, 1, num_tokens]
        tensors["cum_log_probs"] = np.array([[sum(logprobs)]], np.float32)  # [1, 1]
    if request.return_perf_metrics:
        final = outputs[-1].finish_reason is not None
        tensors |= perf_tensors(outputs, PERF_METRICS, (1, 1), final)
    return tensors


def _scalar(tensors: Tensors, name: str, default: Any) -> Any:
    if name not in tensors:
        return default
    if tensors[name].size != 1:
        raise RequestError(f"{name} has shape {list(tensors[name].shape)}; expected one value.")
    return tensors[name].item()


def _only_row(tensor: NDArray[Any], name: str, ndim: int) -> NDArray[Any]:
    """The tensor without its batch dimension, which has to be 1; `ndim` is the number of dimensions without it."""
    if tensor.ndim == ndim + 1 and tensor.shape[0] == 1:
        return tensor[0]
    if tensor.ndim != ndim:
        raise RequestError(
            f"{name} has shape {list(tensor.shape)}; send one sequence per request, since the engine batches requests."
        )
    return tensor
