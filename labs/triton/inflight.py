"""Many requests at once in a model of the Python backend; importable inside Triton only.

`begin` returns at once, and every request is answered from one event loop: all of them are in the engine together.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, ClassVar, TypeVar

import triton_python_backend_utils as pb

from labs.engine import AsyncExecutor, Executor, RequestError
from labs.engine.runtime.async_executor import EngineStopped, Load, QueueFull
from labs.triton.sender import Sender, receive

T = TypeVar("T")
Answer = Callable[[dict[str, Any], Sender], Coroutine[Any, Any, None]]
CODES = {
    RequestError: "INVALID_ARG",
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
    ) -> None:
        self.engine = AsyncExecutor(executor, max_queue_size or None)
        self.answer, self.decoupled, self.period = answer, decoupled, period
        self.open: dict[asyncio.Task[None], tuple[str, Sender]] = {}
        self.gauges = Gauges(executor)
        sys.setswitchinterval(0.0005)  # seconds; the engine's thread gives the others their turn sooner
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.watch(), self.loop)

    def begin(self, requests: Sequence[Any]) -> None:
        for one in receive(requests):
            self.loop.call_soon_threadsafe(self._begin, *one)

    def check_streaming(self, streaming: bool) -> bool:
        if streaming and not self.decoupled:
            raise RequestError("streaming: this model is not decoupled; render it with decoupled_mode:true.")
        return streaming

    def close(self) -> None:
        self.engine.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def _begin(self, name: str, tensors: dict[str, Any], sender: Sender) -> None:
        if "stop" in tensors and tensors["stop"].any():
            for task in [task for task, (other, _) in self.open.items() if other == name != ""]:
                task.cancel()
            sender.send({}, final=True)
            return
        task = self.loop.create_task(self._serve(tensors, sender))
        self.open[task] = (name, sender)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        """A task that was cancelled before its first step has told nobody."""
        self.open.pop(task)[1].fail("the request was cancelled.", "CANCELLED")

    async def _serve(self, tensors: dict[str, Any], sender: Sender) -> None:
        """Answer one request; whatever happens, its last response is sent, once."""
        try:
            await self.answer(tensors, sender)
        except BaseException as error:
            code = next((CODES[kind] for kind in CODES if isinstance(error, kind)), "INTERNAL")
            sender.fail(str(error) or "the request was cancelled.", code)

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

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
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

    def _set(self, name: str, **values: float) -> None:
        for kind, value in values.items():
            if (name, kind) not in self.gauges:
                labels = {self.LABELS[name]: kind, "model": "tensorrt_llm", "version": "1"}
                self.gauges[name, kind] = self.families[name].Metric(labels)
            self.gauges[name, kind].set(value)
