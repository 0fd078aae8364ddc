"""`tensorrt_llm` behind Triton's gRPC streaming, as what generates tokens for the HTTP server of engineroom/openai.

It uses the contract of NVIDIA's backend and nothing else; against that backend itself it was not run.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
from fastapi import HTTPException
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import np_to_triton_dtype

from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.engine.runtime.executor import Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.metrics.prometheus import parse
from engineroom.triton.backend.words import word_list

MODEL = "tensorrt_llm"
REQUESTS, BLOCKS = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
GAUGES = {REQUESTS: "request_type", BLOCKS: "kv_cache_block_type"}
CODE = re.compile(r"\b(INVALID_ARG|UNAVAILABLE): (.*)", re.DOTALL)
LOAD = (f"{REQUESTS} scheduled", f"{REQUESTS} waiting", f"{BLOCKS} used", f"{BLOCKS} max")


class TimedOut(HTTPException):
    """An answer took longer than the server allows."""

    def __init__(self, seconds: float) -> None:
        super().__init__(504, f"the answer took longer than this server's limit of {seconds:g} s.")


@dataclass(frozen=True)
class Load:
    """What `engineroom.openai.metrics.Load` asks for, out of Triton's metrics."""

    running: float
    waiting: float
    kv_cache_usage: float


class TritonBackend:
    """Tokens in, tokens out, for one event loop. `address` is gRPC's host:port; `url`, `metrics` of the same server.

    `request_timeout`: seconds that one answer may take. `max_requests`: answers in the making at a time; one more is
    refused with QueueFull.
    """

    def __init__(
        self, address: str, url: str, metrics: str, request_timeout: float = 300, max_requests: int = 512
    ) -> None:
        self.address, self.url, self.metrics = address, url, metrics
        self.request_timeout, self.max_requests, self.open = request_timeout, max_requests, 0
        self._client: InferenceServerClient | None = None

    async def generate(self, tokens: Sequence[int], params: SamplingParams) -> AsyncGenerator[Output]:
        """One answer. Leaving it cancels the request, in Triton and in the engine."""
        if self.open >= self.max_requests:
            raise QueueFull(
                f"{self.open} answers are in the making, as many as this server takes; ask later."
            )
        self._client = self._client or InferenceServerClient(self.address)
        stream = self._client.stream_infer(_once(request(tokens, params)), self.request_timeout)
        self.open += 1
        try:
            async for output in _outputs(stream, params):
                yield output
        except grpc.RpcError as error:
            raise self._translated(error) from None
        finally:
            self.open -= 1
            stream.cancel()

    def load(self) -> Load:
        """As Triton tells it now, all versions together; not a number where it does not answer."""
        found: defaultdict[str, float] = defaultdict(float)
        try:
            text = httpx.get(self.metrics, timeout=1, trust_env=False).text
        except httpx.HTTPError:
            return Load(math.nan, math.nan, math.nan)
        for sample in parse(text, GAUGES):
            found[f"{sample.name} {sample.labels[GAUGES[sample.name]]}"] += sample.value
        running, waiting, used, most = (found.get(name, math.nan) for name in LOAD)
        return Load(running, waiting, used / most)

    def problem(self) -> str | None:
        """Why no answer can be expected now."""
        try:
            answer = httpx.get(f"{self.url}/v2/models/tensorrt_llm/ready", timeout=2, trust_env=False)
        except httpx.HTTPError as error:
            return f"Triton does not answer at {self.url}: {error}"
        return None if answer.status_code == 200 else "Triton has no model tensorrt_llm that is ready."

    def _translated(self, error: grpc.RpcError) -> Exception:
        """What ends a stream from outside; a model's errors come within it."""
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimedOut(self.request_timeout)
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return EngineStopped(f"Triton at {self.address} does not answer: {error.details()}")
        return RuntimeError(f"Triton says: {error.details()}")


def refused(message: str) -> Exception:
    """A model's or Triton's error within a stream. There it has no status, so the model names it in its message.

    (With the header `triton_grpc_error` errors would end the stream with their status, but clients that leave then
    can end Triton 2.51: ASSERTION FAILED: prior > 0.)
    """
    found = CODE.search(message)
    code, said = found.groups() if found else ("", message)
    if "max_queue_size" in said or "maximum queue size" in said:
        return QueueFull(said)
    if code == "INVALID_ARG":
        return RequestError(said)
    return EngineStopped(said) if code == "UNAVAILABLE" else RuntimeError(f"Triton says: {message}")


def request(tokens: Sequence[int], params: SamplingParams) -> dict[str, Any]:
    """One streamed request as tritonclient takes it. Raises RequestError for a number that no tensor holds."""
    if params.max_tokens >= 2**31:
        raise RequestError(f"max_tokens is {params.max_tokens}; expected less than 2³¹.")
    arrays = {
        "input_ids": np.array([tokens], np.int32),
        "input_lengths": np.array([[len(tokens)]], np.int32),
        "request_output_len": np.array([[params.max_tokens]], np.int32),
        "streaming": np.array([[True]]),
        "return_log_probs": np.array([[params.logprobs]]),
        "runtime_top_k": np.array([[1 if params.greedy else params.top_k]], np.int32),
        "stop_words_list": word_list(_ends(params)),
    }
    if not params.greedy:
        arrays["temperature"] = np.array([[params.temperature]], np.float32)
        arrays["runtime_top_p"] = np.array([[params.top_p]], np.float32)
    if params.seed is not None:
        arrays["seed"] = np.array([[params.seed]], np.int64).view(np.uint64)
    inputs = []
    for name, array in arrays.items():
        inputs.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return {"model_name": MODEL, "inputs": inputs}


async def _once(item: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield item


async def _outputs(stream: Any, params: SamplingParams) -> AsyncGenerator[Output]:
    """Token by token. A stream that ends by itself had an end token that the backend keeps (NVIDIA's does).

    The last token is given when Triton has ended the stream: a stream that is cancelled at that moment stays in the
    server for ever (2.51), and its model cannot be unloaded.
    """
    ends, said = _ends(params), []
    async for result, error in stream:
        if error:
            raise refused(str(error))
        ids, chances = result.as_numpy("output_ids"), result.as_numpy("output_log_probs")
        for place, token in enumerate(ids.flat if ids is not None else ()):
            said.append(int(token))
            reason = "length" if len(said) == params.max_tokens else None
            reason = "stop" if any(tuple(said[-len(end) :]) == end for end in ends) else reason
            output = Output(said[-1], float(chances.flat[place]) if params.logprobs else 0.0, reason)
            if reason:
                async for _ in stream:
                    pass
            yield output
            if reason:
                return
    yield Output(ends[0][0] if ends else 0, 0.0, "stop")


def _ends(params: SamplingParams) -> list[tuple[int, ...]]:
    return [*([] if params.end_id is None else [(params.end_id,)]), *params.stop_words]
