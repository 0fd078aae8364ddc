"""Text in, text out, with the tensors of NVIDIA's `llmapi` model; tokens and stop strings as before the HTTP server."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engineroom.engine import Executor, KvCacheConfig, SamplingParams
from engineroom.engine.directory import TOKENIZER
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.openai.text import Piece, Vocabulary, join, pieces
from engineroom.triton.backend.inflight import InFlight, together
from engineroom.triton.backend.request import sampling
from engineroom.triton.backend.sender import Sender
from engineroom.triton.backend.words import decode

PREFIX = "sampling_param_"
DEFAULTS = {"max_tokens": 32, "temperature": 1.0, "top_k": 0, "top_p": 0.0, "seed": None}
NEUTRAL = {"best_of": 1, "frequency_penalty": 0, "presence_penalty": 0, "return_perf_metrics": 0}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        file = Path(args["model_repository"], args["model_version"], "model.yaml")
        config = yaml.safe_load(file.read_text())
        triton = config["triton_config"]
        executor = Executor(config["model"], KvCacheConfig(**config["kv_cache_config"]))
        self.vocabulary = Vocabulary(Path(config["model"], TOKENIZER))
        period = triton["cancellation_check_period_ms"] / 1000
        options = triton["decoupled"], triton["max_queue_size"], period, args["model_version"]
        self.requests = InFlight(executor, self.answer, *options)

    def execute(self, requests: Sequence[Any]) -> None:
        self.requests.begin(requests)

    async def answer(self, tensors: dict[str, Any], sender: Sender) -> None:
        [prompt, *more] = decode("text_input", tensors["text_input"])
        if more:
            raise RequestError(f"text_input has {1 + len(more)} texts; send one in a request.")
        stops = [word for word in decode(f"{PREFIX}stop", tensors.get(f"{PREFIX}stop", np.array([]))) if word]
        streaming = self.requests.check_streaming(bool(tensors.get("streaming", np.False_).any()))
        stream = self.requests.engine.generate(self.vocabulary.encode(prompt), self.params(tensors))
        said: list[Piece] = []
        async with aclosing(together(pieces(stream, self.vocabulary, stops, True))) as parts:
            async for part in parts:
                said += part
                if streaming or part[-1].finish_reason:
                    made = response(join(part if streaming else said), said, tensors)
                    sender.send(made, final=part[-1].finish_reason is not None)

    def params(self, tensors: dict[str, Any]) -> SamplingParams:
        given = {
            name: tensors[PREFIX + name].item() for name in {*DEFAULTS, *NEUTRAL} if PREFIX + name in tensors
        }
        if wrong := [name for name in NEUTRAL if given.pop(name, NEUTRAL[name]) != NEUTRAL[name]]:
            raise RequestError(f"{PREFIX}{wrong[0]}: this engine does not have it; leave it out.")
        stops = tuple((end,) for end in self.vocabulary.end_ids)
        values = DEFAULTS | given | {"logprobs": True, "stop_words": stops}
        return sampling(values, {name: PREFIX + name for name in DEFAULTS})

    def finalize(self) -> None:
        self.requests.close()


def response(piece: Piece, said: list[Piece], tensors: dict[str, Any]) -> dict[str, Any]:
    made = {"text_output": np.array([piece.text.encode()], object)}
    if asked(tensors, "return_finish_reason") and piece.finish_reason:
        made["finish_reason"] = np.array([piece.finish_reason.encode()], object)
    if asked(tensors, "return_cumulative_logprob"):
        made["cumulative_logprob"] = np.array([sum(one.logprobs[0][1] for one in said)], np.float32)
    return made


def asked(tensors: dict[str, Any], name: str) -> bool:
    return bool(tensors[name].any()) if name in tensors else False
