"""The tensors of `tensorrt_llm`: a request read out of them, an answer put into them; NumPy only.

Names, defaults and meaning follow inflight_batcher_llm/tensorrt_llm/config.pbtxt of TensorRT-LLM 1.2 and its executor's
SamplingConfig. What would change the answer and this engine does not have is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engineroom.engine.runtime.executor import Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import RequestError

Tensors = Mapping[str, NDArray[Any]]
FLAGS = ("streaming", "exclude_input_in_output", "return_log_probs", "return_num_input_tokens")
FLAGS += ("return_num_output_tokens", "return_perf_metrics")
READ = {
    "input_ids",
    "input_lengths",
    "request_output_len",
    "end_id",
    "stop_words_list",
    "temperature",
    "seed",
}
READ |= {"runtime_top_k", "runtime_top_p", "stop", *FLAGS}
# without an effect here: padding, a decoder's own prompt, and what only a beam search reads
WITHOUT_EFFECT = {"pad_id", "decoder_input_ids", "decoder_input_lengths", "len_penalty", "early_stopping"}
NAMES = {"max_tokens": "request_output_len (max_tokens)"}
NAMES |= {"top_k": "runtime_top_k (top_k)", "top_p": "runtime_top_p (top_p)"}
NEUTRAL = {
    "beam_width": 1, "num_return_sequences": 1, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0,
    "min_tokens": 0, "beam_search_diversity_rate": 0, "return_context_logits": 0, "return_generation_logits": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One request: `tokens` and `params` for the engine, the flags for the form of the answer."""

    tokens: list[int]
    params: SamplingParams
    streaming: bool = False
    exclude_input_in_output: bool = False
    return_log_probs: bool = False
    return_num_input_tokens: bool = False
    return_num_output_tokens: bool = False
    return_perf_metrics: bool = False


def read(tensors: Tensors, vocabulary: int, exclude_input_in_output: bool = False) -> Asked:
    """A request of one sequence, shapes [1, …] or without the batch. Raises RequestError that names the tensor."""
    _refuse(tensors)
    flags = {name: bool(_scalar(tensors, name, False)) for name in FLAGS}
    if "exclude_input_in_output" not in tensors:
        flags["exclude_input_in_output"] = exclude_input_in_output
    return Asked(_prompt(tensors, vocabulary), _params(tensors, flags["return_log_probs"]), **flags)


def _refuse(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if name in READ or name in WITHOUT_EFFECT or tensor.size == 0:
            continue
        if name not in NEUTRAL:
            raise RequestError(f"{name}: this engine does not have it; leave it out.")
        if _scalar(tensors, name, None) != NEUTRAL[name]:
            raise RequestError(
                f"{name} is {tensor.item()}: this engine has {NEUTRAL[name]} only; leave it out."
            )


def _prompt(tensors: Tensors, vocabulary: int) -> list[int]:
    if "input_ids" not in tensors:
        raise RequestError("input_ids is missing; expected INT32 [1, tokens].")
    ids = _one_row(tensors["input_ids"], "input_ids", 1)
    length = _scalar(tensors, "input_lengths", len(ids))
    if not 0 <= length <= len(ids):
        raise RequestError(
            f"input_lengths is {length}, input_ids has {len(ids)} tokens; expected at most that."
        )
    tokens = [int(token) for token in ids[:length]]
    if wrong := [token for token in tokens if not 0 <= token < vocabulary]:
        raise RequestError(f"input_ids has token {wrong[0]}; the vocabulary has {vocabulary} tokens.")
    return tokens


def _params(tensors: Tensors, logprobs: bool) -> SamplingParams:
    end = _scalar(tensors, "end_id", -1)
    values = {
        "max_tokens": _scalar(tensors, "request_output_len", 0),
        "temperature": float(_scalar(tensors, "temperature", 1.0)),
        "top_k": _scalar(tensors, "runtime_top_k", 0),
        "top_p": float(_scalar(tensors, "runtime_top_p", 0.0)),
        "seed": _scalar(tensors, "seed", None),
        "end_id": None if end < 0 else end,
        "stop_words": words(tensors.get("stop_words_list")),
        "logprobs": logprobs,
    }
    return sampling(values, NAMES)


def sampling(values: dict[str, Any], names: Mapping[str, str]) -> SamplingParams:
    """As TensorRT-LLM reads it: greedy without top-k and top-p, and a `seed` from 0 to 2**64 - 1.

    Raises RequestError for a value out of its range; `names` are what the tensors are called.
    """
    greedy, seed = not (values["top_k"] or values["top_p"]), values["seed"]
    values = values | {"top_p": values["top_p"] or 1.0}
    values["temperature"] = 0.0 if greedy else values["temperature"]
    values["seed"] = None if seed is None else int(np.uint64(seed).astype(np.int64))
    try:
        return SamplingParams(**values)
    except ValueError as error:
        name, rest = str(error).split(" ", 1)
        raise RequestError(f"{names.get(name, name)} {rest}") from None


def words(tensor: NDArray[Any] | None) -> tuple[tuple[int, ...], ...]:
    """The token sequences that `word_list` put into INT32 [1, 2, n]."""
    if tensor is None or tensor.size == 0:
        return ()
    rows = _one_row(tensor, "stop_words_list", 2)
    if rows.shape[0] != 2:
        raise RequestError(f"stop_words_list has shape {list(tensor.shape)}; expected [1, 2, n].")
    ends = [int(end) for end in rows[1] if end >= 0]
    if sorted({*ends}) != ends or (ends and not 0 < ends[0] <= ends[-1] <= rows.shape[1]):
        raise RequestError(f"stop_words_list has ends {ends}; expected rising, from 1 to {rows.shape[1]}.")
    return tuple(tuple(map(int, rows[0][begin:end])) for begin, end in zip([0, *ends], ends, strict=False))


def answer(asked: Asked, outputs: Sequence[Output], first: int = 0) -> dict[str, NDArray[Any]]:
    """The tensors of one response, with the tokens from `first` on; sums are over all `outputs`.

    The prompt is before the tokens, unless it is excluded or the answer is streamed.
    """
    echo = [] if asked.streaming or asked.exclude_input_in_output else asked.tokens
    ids = [*echo, *(output.token for output in outputs[first:])]
    chances = [output.logprob for output in outputs]
    made = {
        "output_ids": [[ids]],
        "sequence_length": [[len(ids)]],
        "batch_index": [[0]],
        "sequence_index": [[0]],
    }
    if asked.return_num_input_tokens:
        made["num_input_tokens"] = [[len(asked.tokens)]]
    if asked.return_num_output_tokens:
        made["num_output_tokens"] = [[len(outputs)]]
    tensors = {name: np.array(value, np.int32) for name, value in made.items()}
    if asked.return_log_probs:
        tensors["output_log_probs"] = np.array([[chances[first:]]], np.float32)
        tensors["cum_log_probs"] = np.array([[sum(chances)]], np.float32)
    return tensors


def _scalar(tensors: Tensors, name: str, default: Any) -> Any:
    if name not in tensors:
        return default
    if tensors[name].size != 1:
        raise RequestError(f"{name} has shape {list(tensors[name].shape)}; expected one value.")
    return tensors[name].item()


def _one_row(tensor: NDArray[Any], name: str, rank: int) -> NDArray[Any]:
    """Without the batch dimension."""
    if tensor.ndim == rank + 1 and tensor.shape[0] == 1:
        return tensor[0]
    if tensor.ndim != rank:
        raise RequestError(
            f"{name} has shape {list(tensor.shape)}; send one sequence in a request, the engine batches requests."
        )
    return tensor
