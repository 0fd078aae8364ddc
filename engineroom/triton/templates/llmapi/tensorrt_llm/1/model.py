"""Text in, text out, with the tensors of NVIDIA's `llmapi` model.

Tokens and stop strings are handled as in the OpenAI server of engineroom/openai.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from engineroom.engine import Executor, KvCacheConfig, SamplingParams
from engineroom.engine.directory import TOKENIZER
from engineroom.engine.runtime.request import RequestError
from engineroom.openai.text import TextDelta, Vocabulary, detokenize, join_deltas
from engineroom.triton.backend.inflight import InflightRequests, coalesce
from engineroom.triton.backend.model_yaml import read_model_yaml
from engineroom.triton.backend.perf_metrics import LLMAPI_PERF_METRICS, perf_tensors
from engineroom.triton.backend.request import sampling_params
from engineroom.triton.backend.sender import ResponseSender
from engineroom.triton.backend.words import decode

PREFIX = "sampling_param_"
DEFAULTS = {
    "max_tokens": 32, "temperature": 1.0, "top_k": 0, "top_p": 0.0, "seed": None, "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}  # fmt: skip
# Each of these is accepted with the one value that does not change the output.
NEUTRAL_VALUES = {"best_of": 1}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        path = Path(args["model_repository"], args["model_version"], "model.yaml")
        triton_model = json.loads(args["model_config"])
        decoupled = triton_model.get("model_transaction_policy", {}).get("decoupled", False)
        config = read_model_yaml(path, decoupled, triton_model["max_batch_size"])
        triton_config = config.triton_config
        self.vocabulary = Vocabulary(config.model / TOKENIZER)
        self.requests = InflightRequests(
            Executor(config.model, KvCacheConfig(**config.kv_cache_config.model_dump())),
            self.handle,
            triton_config.decoupled,
            triton_config.max_queue_size,
            triton_config.cancellation_check_period_ms / 1000,
            args["model_version"],
        )

    def execute(self, requests: Sequence[Any]) -> None:
        self.requests.submit(requests)

    async def handle(self, tensors: dict[str, Any], sender: ResponseSender) -> None:
        """Send one response while streaming for each batch of text deltas, else one response at the end.

        Each has the whole text so far, as NVIDIA's model sends `CompletionOutput.text` and not its `text_diff`.
        """
        texts = decode("text_input", tensors["text_input"])
        if len(texts) != 1:
            raise RequestError(f"text_input has {len(texts)} texts; send one per request.")
        stop_tensor = tensors.get(f"{PREFIX}stop", np.array([]))
        stop_strings = [text for text in decode(f"{PREFIX}stop", stop_tensor) if text]
        streaming = flag(tensors, "streaming")
        self.requests.check_streaming(streaming)
        stream = self.requests.engine.generate(self.vocabulary.encode(texts[0]), self.params(tensors))
        generated: list[TextDelta] = []
        async with aclosing(coalesce(detokenize(stream, self.vocabulary, stop_strings, True))) as batches:
            async for batch in batches:
                generated += batch
                final = batch[-1].finish_reason is not None
                if streaming or final:
                    sender.send(response_tensors(join_deltas(generated), tensors), final=final)

    def params(self, tensors: dict[str, Any]) -> SamplingParams:
        """Raises RequestError, which names the tensor."""
        names = [name for name in (*DEFAULTS, *NEUTRAL_VALUES) if PREFIX + name in tensors]
        values = {name: tensors[PREFIX + name].item() for name in names}
        for name, neutral_value in NEUTRAL_VALUES.items():
            if values.pop(name, neutral_value) != neutral_value:
                raise RequestError(f"{PREFIX}{name}: this engine does not support it. Leave it out.")
        stop_words = tuple((end_id,) for end_id in self.vocabulary.end_ids)
        values = DEFAULTS | values | {"logprobs": 0, "stop_words": stop_words}
        return sampling_params(values, {name: PREFIX + name for name in DEFAULTS})

    def finalize(self) -> None:
        self.requests.close()


def response_tensors(generated: TextDelta, tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors of one response, each of shape [1], for all that has been generated so far."""
    response = {"text_output": np.array([generated.text.encode()], object)}
    if flag(tensors, "return_finish_reason") and generated.finish_reason:
        response["finish_reason"] = np.array([generated.finish_reason.encode()], object)
    if flag(tensors, "return_cumulative_logprob"):
        cumulative_logprob = sum(output.logprob for output in generated.outputs)
        response["cumulative_logprob"] = np.array([cumulative_logprob], np.float32)
    if flag(tensors, f"{PREFIX}return_perf_metrics"):
        is_final = generated.finish_reason is not None
        response |= perf_tensors(generated.outputs, LLMAPI_PERF_METRICS, (1,), is_final)
    return response


def flag(tensors: dict[str, Any], name: str) -> bool:
    return name in tensors and bool(tensors[name].any())
