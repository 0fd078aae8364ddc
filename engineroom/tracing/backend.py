"""The spans of one generation: `llm_request`, and in it `queue`, `prefill` and `decode`.

The attributes have the names of OpenTelemetry's conventions for generative AI (gen_ai.request.*, gen_ai.response.*,
gen_ai.usage.*) and, for what those do not name, the names of vLLM (vllm/tracing/utils.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from itertools import pairwise

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from engineroom.engine.runtime.async_executor import Backend, EngineStats
from engineroom.engine.runtime.request import TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.tracing.tracer import Tracing, nanoseconds, trace_headers

PHASES = ("queue", "prefill", "decode")
LATENCY = "gen_ai.latency."  # vLLM's; in seconds
Attributes = dict[str, AttributeValue]
GenerateRemotely = Callable[[Sequence[int], SamplingParams, Mapping[str, str]], AsyncGenerator[TokenOutput]]


class TracedBackend:
    """A backend whose requests are traced. `generate_remotely` replaces its `generate` for a backend that is a server.

    It also gets the headers with the trace context, so that the other server's spans become children of `llm_request`.
    """

    def __init__(
        self,
        backend: Backend,
        tracing: Tracing,
        model: str,
        generate_remotely: GenerateRemotely | None = None,
    ) -> None:
        self.backend, self.tracing, self.model = backend, tracing, model
        self.generate_remotely = generate_remotely

    async def generate(self, token_ids: Sequence[int], params: SamplingParams) -> AsyncGenerator[TokenOutput]:
        """As the backend's; closing it early is the end of the output at a stop string, a cancelled task is not."""
        generation = Generation(
            self.tracing, self.model, token_ids, params, self.generate_remotely is not None
        )
        try:
            async with aclosing(self._outputs(token_ids, params, generation.span)) as outputs:
                async for output in outputs:
                    generation.add(output)
                    yield output
        except GeneratorExit:
            generation.finish_reason = generation.finish_reason or "stop"
            raise
        except asyncio.CancelledError:
            generation.fail("cancelled", "the request was cancelled", finish_reason="abort")
            raise
        except Exception as error:
            generation.fail(type(error).__name__, str(error), finish_reason="error")
            raise
        finally:
            generation.end()

    def stats(self) -> EngineStats:
        return self.backend.stats()

    def problem(self) -> str | None:
        return self.backend.problem()

    def _outputs(
        self, token_ids: Sequence[int], params: SamplingParams, span: Span
    ) -> AsyncGenerator[TokenOutput]:
        if self.generate_remotely:
            return self.generate_remotely(token_ids, params, trace_headers(span))
        return self.backend.generate(token_ids, params)


class Generation:
    """The spans of one request while it is generated. Times are in seconds of time.perf_counter."""

    def __init__(
        self, tracing: Tracing, model: str, token_ids: Sequence[int], params: SamplingParams, is_remote: bool
    ) -> None:
        self.tracing, self.start_time = tracing, time.perf_counter()
        self.first: TokenOutput | None = None
        self.first_token_time = self.last_token_time = self.start_time
        self.num_tokens = 0
        self.finish_reason: str | None = None
        self.is_complete = True
        attributes: Attributes = {
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "gen_ai.request.max_tokens": params.max_tokens,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.usage.input_tokens": len(token_ids),
            "gen_ai.usage.prompt_tokens": len(token_ids),  # vLLM still has the older name
        }
        kind = SpanKind.CLIENT if is_remote else SpanKind.INTERNAL
        self.span = tracing.start_span("llm_request", nanoseconds(self.start_time), attributes, kind=kind)

    def add(self, output: TokenOutput) -> None:
        """Record one token. A remote backend does not know when its host has read it; then it is the time now."""
        self.last_token_time = output.read_time or time.perf_counter()
        self.num_tokens += 1
        self.finish_reason = output.finish_reason
        if self.first is None:
            self.first, self.first_token_time = output, self.last_token_time
            self.span.add_event("first_token", timestamp=nanoseconds(self.first_token_time))

    def fail(self, error_type: str, message: str, *, finish_reason: str) -> None:
        """Record how a request ended that has not got all of its output."""
        self.finish_reason, self.is_complete = finish_reason, False
        self.span.set_attribute("error.type", error_type)
        self.span.set_status(Status(StatusCode.ERROR, message))

    def end(self) -> None:
        """End `llm_request` with its last token, or now if it has failed; its parts are contiguous and fill it."""
        end_time = self.last_token_time if self.is_complete else time.perf_counter()
        attributes: Attributes = {
            "gen_ai.usage.output_tokens": self.num_tokens,
            "gen_ai.usage.completion_tokens": self.num_tokens,
            f"{LATENCY}e2e": end_time - self.start_time,
        }
        if self.finish_reason:
            attributes["gen_ai.response.finish_reasons"] = [self.finish_reason]
        if self.first:
            attributes[f"{LATENCY}time_to_first_token"] = self.first_token_time - self.start_time
        if self.first and self.first.metrics:
            attributes |= self._phases(self.first.metrics.first_scheduled_time, end_time)
        self.span.set_attributes(attributes)
        self.span.end(nanoseconds(end_time))

    def _phases(self, scheduled_time: float, end_time: float) -> Attributes:
        """Export the three parts as spans, and return their durations as attributes."""
        times = (self.start_time, scheduled_time, self.first_token_time, end_time)
        parent = set_span_in_context(self.span)
        for name, (begin, end) in zip(PHASES, pairwise(times), strict=True):
            self.tracing.start_span(name, nanoseconds(begin), {}, parent).end(nanoseconds(end))
        return {
            f"{LATENCY}time_in_queue": scheduled_time - self.start_time,
            f"{LATENCY}time_in_model_prefill": self.first_token_time - scheduled_time,
            f"{LATENCY}time_in_model_decode": end_time - self.first_token_time,
            f"{LATENCY}time_in_model_inference": end_time - scheduled_time,
        }
