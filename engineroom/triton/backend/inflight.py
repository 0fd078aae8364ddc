"""Many requests at once in a model of the Python backend; importable inside Triton only.

`begin` returns at once, and every request is answered from one event loop: all of them are in the engine together.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, TypeVar

import triton_python_backend_utils as pb

from engineroom.engine import AsyncExecutor, Executor, RequestError
from engineroom.engine.runtime.async_executor import EngineStopped, Load, QueueFull
from engineroom.triton.backend.sender import Sender, receive
from engineroom.triton.backend.words import TensorError

T = TypeVar("T")
Answer = Callable[[dict[str, Any], Sender], Coroutine[Any, Any, None]]
CODES = {
    RequestError: "INVALID_ARG",
    TensorError: "INVALID_ARG",
    QueueFull: "UNAVAILABLE",
    EngineStopped: "UNAVAILABLE",
    asyncio.CancelledError: "CANCELLED",
}


class InFlight:
    """An engine, and what is asked of it: `answer` sends the responses to one request, from its tensors."""

    def __init__(
        self,
        executor: Executor,
        answer: Answer,
        decoupled: bool,
        max_queue_size: int = 0,
        period: float = 0.1,
        version: str = "1",
    ) -> None:
        self.engine = AsyncExecutor(executor, max_queue_size or None)
        self.answer, self.decoupled, self.period = answer, decoupled, period
        self.open: dict[asyncio.Task[None], tuple[str, Sender]] = {}
        self.gauges = Gauges(executor, version)
        gc.collect()
        gc.freeze()  # what loading made stays: the collector need not hold a step up to look at it again
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        self.watching = asyncio.run_coroutine_threadsafe(self.watch(), self.loop)

    def begin(self, requests: Sequence[Any]) -> None:
        for one in receive(requests):
            self.loop.call_soon_threadsafe(self._begin, *one)

    def check_streaming(self, streaming: bool) -> bool:
        if streaming and not self.decoupled:
            raise RequestError("streaming: this model is not decoupled; render it with decoupled_mode:true.")
        return streaming

    def close(self) -> None:
        """Triton calls for it when every request has had its final response, or at the end of the server."""
        self.engine.close()
        self.watching.cancel()
        self.loop.call_soon_threadsafe(self.loop.call_soon, self.loop.stop)  # one turn later: the watch ends
        self.thread.join()
        self.gauges.close()

    def _begin(self, name: str, tensors: dict[str, Any], sender: Sender) -> None:
        if "stop" in tensors and tensors["stop"].any():
            self._stop(name, sender)
            return
        task = self.loop.create_task(self._serve(tensors, sender))
        self.open[task] = (name, sender)
        task.add_done_callback(self._end)

    def _stop(self, name: str, sender: Sender) -> None:
        if not name:
            return sender.fail(
                "INVALID_ARG: stop: give the request id of the request that is to stop.", "INVALID_ARG"
            )
        for task in [task for task, (other, _) in self.open.items() if other == name]:
            task.cancel()
        sender.send({}, final=True)

    def _end(self, task: asyncio.Task[None]) -> None:
        """A task that was cancelled before its first step has told nobody."""
        self.open.pop(task)[1].fail("CANCELLED: the request was cancelled.", "CANCELLED")

    async def _serve(self, tensors: dict[str, Any], sender: Sender) -> None:
        """Answer one request; whatever happens, its last response is sent, once.

        Triton drops the status of an error within a gRPC stream or an SSE, so the message has it too.
        """
        try:
            await self.answer(tensors, sender)
        except BaseException as error:
            code = next((CODES[kind] for kind in CODES if isinstance(error, kind)), "INTERNAL")
            sender.fail(f"{code}: {str(error) or 'the request was cancelled.'}", code)

    async def watch(self) -> None:
        """Find the requests whose client has gone, and tell Prometheus how full the engine is."""
        while True:
            await asyncio.sleep(self.period)
            for task, (_, sender) in list(self.open.items()):
                if sender.cancelled():
                    task.cancel()
            self.gauges.update(self.engine.load())


async def together(stream: AsyncGenerator[T]) -> AsyncGenerator[list[T]]:
    """What has come since the last turn, at once: tokens may come faster than responses can be sent."""
    fresh, came = asyncio.Event(), list[T]()

    async def collect() -> None:
        async with aclosing(stream):
            async for one in stream:
                came.append(one)
                fresh.set()

    task = asyncio.create_task(collect())
    task.add_done_callback(lambda _: fresh.set())
    try:
        while came or not task.done():
            await fresh.wait()
            fresh.clear()
            if came:
                taken = came[:]
                came.clear()
                yield taken
                await asyncio.sleep(0)
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Gauges:
    """The figures of NVIDIA's backend that this engine has, by their names and labels."""

    LABELS: ClassVar = {
        "request": "request_type",
        "kv_cache_block": "kv_cache_block_type",
        "general": "general_type",
    }

    def __init__(self, executor: Executor, version: str) -> None:
        self.executor, self.version = executor, version
        self.families = {
            name: pb.MetricFamily(
                f"nv_trt_llm_{name}_metrics", f"{name} figures of the engine", pb.MetricFamily.GAUGE
            )
            for name in self.LABELS
        }
        self.gauges: dict[tuple[str, str], Any] = {}

    def update(self, load: Load) -> None:
        blocks, seats = self.executor.blocks, self.executor.engine.build.max_batch_size
        active, used = load.running + load.waiting, blocks.total - blocks.available
        self._set("request", active=active, scheduled=load.running, waiting=load.waiting, max=seats)
        self._set(
            "kv_cache_block",
            max=blocks.total,
            used=used,
            free=blocks.available,
            tokens_per=blocks.tokens_per_block,
        )
        self._set("general", iteration_counter=self.executor.steps)

    def close(self) -> None:
        """Take the figures off Triton's page: another version of the model may live on."""
        self.gauges.clear()
        self.families.clear()

    def _set(self, name: str, **values: float) -> None:
        for kind, value in values.items():
            if (name, kind) not in self.gauges:
                # equal labels are one object in Triton, which the first process that ends would take from the others
                labels = {self.LABELS[name]: kind, "model": "tensorrt_llm", "version": self.version}
                labels["process"] = str(os.getpid())
                self.gauges[name, kind] = self.families[name].Metric(labels)
            self.gauges[name, kind].set(value)
