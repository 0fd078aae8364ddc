"""Serve all requests of a Python backend model concurrently; importable inside Triton only.

`submit` returns at once. One event loop serves all requests, so all of them are in the engine together.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from engineroom.engine import AsyncExecutor, Executor, RequestError
from engineroom.engine.runtime.async_executor import EngineStopped, QueueFull
from engineroom.tracing.instrument import traced_backend
from engineroom.tracing.switch import ENVIRONMENT_VARIABLE, start_tracing
from engineroom.triton.backend.gauges import EngineGauges
from engineroom.triton.backend.sender import ResponseSender, receive
from engineroom.triton.backend.words import TensorError

Item = TypeVar("Item")
Handler = Callable[[dict[str, Any], ResponseSender], Coroutine[Any, Any, None]]
ERROR_CODES = {
    RequestError: "INVALID_ARG",
    TensorError: "INVALID_ARG",
    QueueFull: "UNAVAILABLE",
    EngineStopped: "UNAVAILABLE",
    asyncio.CancelledError: "CANCELLED",
}


class InflightRequests:
    """An engine and the requests that it is working on.

    `handle` takes the tensors of one request and sends its responses. `max_queue_size` 0 means no limit. Every
    `check_period` seconds the requests of clients that have left are cancelled, and the engine's gauges are updated.
    """

    def __init__(
        self,
        executor: Executor,
        handle: Handler,
        decoupled: bool,
        max_queue_size: int = 0,
        check_period: float = 0.1,
        version: str = "1",
    ) -> None:
        self.executor = AsyncExecutor(executor, max_queue_size or None)
        self.tracing = start_tracing(os.environ.get(ENVIRONMENT_VARIABLE), "engine")
        self.engine = traced_backend(self.executor, self.tracing, "tensorrt_llm")
        self.handle, self.decoupled, self.check_period = handle, decoupled, check_period
        self.tasks: dict[asyncio.Task[None], tuple[str, ResponseSender]] = {}  # with the request's id
        self.gauges = EngineGauges(executor, version)
        gc.collect()
        gc.freeze()  # loaded objects stay: otherwise the collector scans all of them again, which delays a step
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        self.watching = asyncio.run_coroutine_threadsafe(self._watch(), self.loop)

    def submit(self, requests: Sequence[Any]) -> None:
        for request, tensors, sender in receive(requests):
            context = trace_context(request) if self.tracing else None
            self.loop.call_soon_threadsafe(self._start, request.request_id(), tensors, sender, context)

    def check_streaming(self, streaming: bool) -> None:
        """Raise RequestError for a streaming request to a model that sends one response."""
        if streaming and not self.decoupled:
            raise RequestError("streaming: this model is not decoupled; render it with decoupled_mode:true.")

    def close(self) -> None:
        """Triton calls this when every request has had its final response, or when the server ends."""
        self.executor.close()
        self.watching.cancel()
        # The loop stops one turn later, so that the cancelled watch can end in it.
        self.loop.call_soon_threadsafe(self.loop.call_soon, self.loop.stop)
        self.thread.join()
        self.gauges.close()
        if self.tracing:
            self.tracing.close()

    def _start(
        self,
        request_id: str,
        tensors: dict[str, Any],
        sender: ResponseSender,
        context: contextvars.Context | None,
    ) -> None:
        if "stop" in tensors and tensors["stop"].any():
            self._stop(request_id, sender)
            return
        task = self.loop.create_task(self._serve(tensors, sender), context=context)
        self.tasks[task] = (request_id, sender)
        task.add_done_callback(self._end)

    def _stop(self, request_id: str, sender: ResponseSender) -> None:
        """Cancel the requests with this id."""
        if not request_id:
            message = "INVALID_ARG: stop: give the request id of the request that is to stop."
            sender.fail(message, "INVALID_ARG")
            return
        for task, (task_request_id, _) in list(self.tasks.items()):
            if task_request_id == request_id:
                task.cancel()
        sender.send({}, final=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Forget the task. If it was cancelled before its first step, no response was sent yet, so send an error."""
        _, sender = self.tasks.pop(task)
        sender.fail("CANCELLED: the request was cancelled.", "CANCELLED")

    async def _serve(self, tensors: dict[str, Any], sender: ResponseSender) -> None:
        """Answer one request. Whatever happens, one final response is sent.

        Triton drops the status of an error within a gRPC stream or an SSE stream, so the message begins with it.
        """
        try:
            await self.handle(tensors, sender)
        except BaseException as error:  # noqa: BLE001 (a request without a final response would wait forever)
            code = next((code for kind, code in ERROR_CODES.items() if isinstance(error, kind)), "INTERNAL")
            sender.fail(f"{code}: {str(error) or 'the request was cancelled.'}", code)

    async def _watch(self) -> None:
        """Cancel the requests whose clients have left, and update the gauges, once in each period."""
        while True:
            await asyncio.sleep(self.check_period)
            for task, (_, sender) in list(self.tasks.items()):
                if sender.cancelled():
                    task.cancel()
            self.gauges.update(self.engine.stats())


def trace_context(request: Any) -> contextvars.Context:
    """A context in which spans are children of Triton's span for this request; Triton gives its headers as JSON."""
    from engineroom.tracing.tracer import attach_headers

    context = contextvars.Context()
    headers = request.trace().get_context()  # None for a request that Triton does not trace
    context.run(attach_headers, json.loads(headers) if headers else {})
    return context


async def coalesce(stream: AsyncGenerator[Item]) -> AsyncGenerator[list[Item]]:
    """The items of a stream in lists: all that arrived since the last list was taken.

    Tokens may arrive faster than responses can be sent; one response then has several tokens.
    """
    arrival, items = asyncio.Event(), list[Item]()

    async def collect() -> None:
        async with aclosing(stream):
            async for item in stream:
                items.append(item)
                arrival.set()

    task = asyncio.create_task(collect())
    task.add_done_callback(lambda _: arrival.set())
    try:
        while items or not task.done():
            await arrival.wait()
            arrival.clear()
            if items:
                batch = items[:]
                items.clear()
                yield batch
                await asyncio.sleep(0)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
