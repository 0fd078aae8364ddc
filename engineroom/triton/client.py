"""A backend for engineroom/openai that generates tokens with Triton's model `tensorrt_llm`, over gRPC streaming.

It relies only on the contract of NVIDIA's backend, but has not been run against that backend itself.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

import grpc
import httpx
import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import np_to_triton_dtype

from engineroom.engine.runtime.async_executor import EngineStats, EngineStopped, QueueFull
from engineroom.engine.runtime.request import ContextLengthError, FinishReason, RequestError, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.network import http_get
from engineroom.metrics.prometheus import parse
from engineroom.openai.fields import FieldError
from engineroom.triton.backend.words import word_list

MODEL = "tensorrt_llm"
REQUESTS, BLOCKS = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
LABELS = {REQUESTS: "request_type", BLOCKS: "kv_cache_block_type"}
# the limits as our backend names them, and as NVIDIA's does
CONTEXT_LENGTH = re.compile("max_input_len|max_seq_len|the KV cache holds|maximum input length")
ERROR_CODE = re.compile(r"\b(INVALID_ARG|UNAVAILABLE): (.*)", re.DOTALL)


class RequestTimeout(HTTPException):
    """A request took longer than the server allows: status 504."""

    def __init__(self, seconds: float) -> None:
        super().__init__(504, f"the answer took longer than this server's limit of {seconds:g} s.")


class TritonBackend:
    """Generates tokens for one event loop.

    `address` is gRPC's host:port; `url` and `metrics` are addresses of the same server. `request_timeout`: seconds that
    one request may take. `max_requests`: requests served at a time; further ones are refused with QueueFull.
    """

    def __init__(
        self, address: str, url: str, metrics: str, request_timeout: float = 300, max_requests: int = 512
    ) -> None:
        self.address, self.url, self.metrics = address, url, metrics
        self.request_timeout, self.max_requests = request_timeout, max_requests
        self.num_requests = 0
        self._client: InferenceServerClient | None = None

    async def generate(
        self, token_ids: Sequence[int], params: SamplingParams, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[TokenOutput]:
        """Stream one request's output. Closing it cancels the request. `headers` are gRPC's, such as traceparent."""
        if self.num_requests >= self.max_requests:
            raise QueueFull(
                f"{self.num_requests} requests are running, as many as this server accepts; try again later."
            )
        if self._client is None:  # a client belongs to the event loop in which it is created
            self._client = InferenceServerClient(self.address)
        request = stream_request(token_ids, params)
        deadline = time.monotonic() + self.request_timeout
        stream: Any = self._client.stream_infer(_requests(request), self.request_timeout, headers=headers)
        self.num_requests += 1
        try:
            async for output in _outputs(stream, params):
                yield output
        except (grpc.RpcError, asyncio.CancelledError) as error:
            if _is_timeout(error, is_late=time.monotonic() >= deadline):
                raise RequestTimeout(self.request_timeout) from None
            if isinstance(error, asyncio.CancelledError):
                raise
            raise self._translated(error) from None
        finally:
            self.num_requests -= 1
            stream.cancel()

    def stats(self) -> EngineStats:
        """The current load, summed over all versions of the model; NaN if Triton does not answer."""
        values: defaultdict[tuple[str, str], float] = defaultdict(float)
        try:
            page = http_get(self.metrics, timeout=1).text
        except httpx.HTTPError:
            return EngineStats(math.nan, math.nan, math.nan)
        for sample in parse(page, LABELS):
            values[sample.name, sample.labels[LABELS[sample.name]]] += sample.value
        used_blocks = values.get((BLOCKS, "used"), math.nan)
        max_blocks = values.get((BLOCKS, "max"), math.nan)
        return EngineStats(
            num_running_requests=values.get((REQUESTS, "scheduled"), math.nan),
            num_waiting_requests=values.get((REQUESTS, "waiting"), math.nan),
            kv_cache_usage=used_blocks / max_blocks,
        )

    def problem(self) -> str | None:
        """Why the server cannot answer now, or None."""
        try:
            response = http_get(f"{self.url}/v2/models/{MODEL}/ready", timeout=2)
        except httpx.HTTPError as error:
            return f"Triton does not answer at {self.url}: {error}"
        return None if response.status_code == 200 else f"Triton has no model {MODEL} that is ready."

    def _translated(self, error: grpc.RpcError) -> Exception:
        """The exception for a stream that gRPC ended; errors of the model are messages within the stream."""
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return EngineStopped(f"Triton at {self.address} does not answer: {error.details()}")
        return RuntimeError(f"Triton says: {error.details()}")


def _is_timeout(error: grpc.RpcError | asyncio.CancelledError, is_late: bool) -> bool:
    """Whether the time limit ended a stream.

    When the time ends while the request is being sent, gRPC reports an internal error of its own, or that the stream is
    cancelled although nobody has cancelled its task.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return is_late and task is not None and not task.cancelling()
    code = error.code()
    return code == grpc.StatusCode.DEADLINE_EXCEEDED or (is_late and code == grpc.StatusCode.INTERNAL)


def stream_error(message: str) -> Exception:
    """The exception for an error within a stream. It has no status there, so the message begins with its name.

    (With the header `triton_grpc_error` an error would end the stream with its status. But then a client that leaves
    can end Triton 2.51: ASSERTION FAILED: prior > 0.)
    """
    match = ERROR_CODE.search(message)
    code, text = match.groups() if match else ("", message)
    if "max_queue_size" in text or "maximum queue size" in text:
        return QueueFull(text)
    if CONTEXT_LENGTH.search(text):
        return ContextLengthError(text)
    if code == "INVALID_ARG":
        return RequestError(text)
    return EngineStopped(text) if code == "UNAVAILABLE" else RuntimeError(f"Triton says: {message}")


def infer_inputs(arrays: Mapping[str, NDArray[Any]]) -> list[InferInput]:
    """NumPy arrays as tritonclient's input tensors; an array of objects holds texts."""
    inputs = []
    for name, array in arrays.items():
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def stream_request(token_ids: Sequence[int], params: SamplingParams) -> dict[str, Any]:
    """The arguments of one streamed request, for `stream_infer`. Every tensor has a batch dimension of 1.

    Raises RequestError for a number that does not fit into its tensor, FieldError for what the tensors cannot express.
    """
    _check_expressible(params)
    if params.max_tokens >= 2**31:
        raise RequestError(f"max_tokens is {params.max_tokens}; expected less than 2³¹.")
    arrays = {
        "input_ids": np.array([token_ids], np.int32),  # [1, num_tokens]
        "input_lengths": np.array([[len(token_ids)]], np.int32),
        "request_output_len": np.array([[params.max_tokens]], np.int32),
        "streaming": np.array([[True]]),
        "return_log_probs": np.array([[params.logprobs is not None]]),
        "runtime_top_k": np.array([[1 if params.greedy else params.top_k]], np.int32),
        "stop_words_list": word_list(_stop_words(params)),
    }
    if not params.greedy:
        arrays["temperature"] = np.array([[params.temperature]], np.float32)
        arrays["runtime_top_p"] = np.array([[params.top_p]], np.float32)
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty"):
        if getattr(params, name) != getattr(SamplingParams, name):
            arrays[name] = np.array([[getattr(params, name)]], np.float32)
    if params.min_tokens:
        arrays["min_tokens"] = np.array([[params.min_tokens]], np.int32)
    if params.seed is not None:
        arrays["seed"] = np.array([[params.seed]], np.int64).view(np.uint64)
    return {"model_name": MODEL, "inputs": infer_inputs(arrays)}


def _check_expressible(params: SamplingParams) -> None:
    """Raises FieldError, which names the field of OpenAI's API."""
    unsupported = {
        "echo": params.prompt_logprobs is not None,
        "logit_bias": bool(params.logit_bias),
        "min_p": params.min_p > 0,
        "response_format": params.grammar is not None,
    }
    for field, is_used in unsupported.items():
        if is_used:
            raise FieldError(field, "Triton's model tensorrt_llm has no tensor for it; leave it out.")
    num_logprobs = params.logprobs or 0
    if num_logprobs > 1 or (num_logprobs and not params.greedy):
        raise FieldError(
            "logprobs", "Triton's model has the chosen token's only; expected 0, or 1 at temperature 0."
        )


async def _requests(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


async def _outputs(stream: Any, params: SamplingParams) -> AsyncGenerator[TokenOutput]:
    """Yield the tokens of a stream. NVIDIA's backend omits an end token, so it is added if no other token was the last.

    The last token is yielded only when Triton has ended the stream: a stream that is cancelled at that moment stays in
    the server forever (2.51), and its model cannot be unloaded.
    """
    stop_words, token_ids = _stop_words(params), list[int]()
    async for result, error in stream:
        if error:
            raise stream_error(str(error))
        output_ids, logprobs = result.as_numpy("output_ids"), result.as_numpy("output_log_probs")
        for index, token_id in enumerate(output_ids.flat if output_ids is not None else ()):
            token_ids.append(int(token_id))
            reason = _finish_reason(token_ids, stop_words, params.max_tokens)
            logprob = float(logprobs.flat[index]) if params.logprobs is not None else 0.0
            if reason:
                async for _ in stream:
                    pass
            top_logprobs = ((token_ids[-1], logprob),) if params.logprobs else ()
            yield TokenOutput(token_ids[-1], logprob, reason, top_logprobs=top_logprobs)
            if reason:
                return
    yield TokenOutput(stop_words[0][0] if stop_words else 0, 0.0, "stop")


def _finish_reason(
    token_ids: list[int], stop_words: list[tuple[int, ...]], max_tokens: int
) -> FinishReason | None:
    if any(tuple(token_ids[-len(stop_word) :]) == stop_word for stop_word in stop_words):
        return "stop"
    return "length" if len(token_ids) == max_tokens else None


def _stop_words(params: SamplingParams) -> list[tuple[int, ...]]:
    """The token sequences that end the output: the end token, then the stop words."""
    end = [] if params.end_id is None else [(params.end_id,)]
    return [*end, *params.stop_words]
