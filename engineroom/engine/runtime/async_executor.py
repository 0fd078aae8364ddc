"""The executor's loop in a thread of its own, behind async iterators."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from engineroom.engine.runtime.executor import Executor, Output
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Request


class QueueFull(RuntimeError):
    """As many requests as the engine may hold are running or waiting; ask again later."""


class EngineStopped(RuntimeError):
    """The engine was shut down; no request runs any more."""


@dataclass(frozen=True)
class Load:
    """Requests that run and that wait, and the share of the KV cache's blocks that running requests hold."""

    running: int
    waiting: int
    kv_cache_usage: float


Queue = asyncio.Queue[Output | Exception]
SWITCH = 0.0005  # seconds until a thread that waits for the GIL gets it; Python's own 5 ms are several steps


class AsyncExecutor:
    """The loop in a thread of its own: `async for output in executor.generate(tokens, params)`.

    Leaving the loop early, or cancelling the task, cancels the request: its blocks are free before the next step.
    At most max_batch_size + `max_queue_size` requests are held (the name is TensorRT-LLM's); None: no bound.
    AOTInductor holds the GIL while the host computes a step, so on a CPU Python's threads take turns more often.
    """

    def __init__(self, executor: Executor, max_queue_size: int | None = None) -> None:
        self.executor, self.max_queue_size = executor, max_queue_size
        self._work, self._stop, self._failure = threading.Event(), False, ""
        self._inbox: deque[Request] = deque()
        self._queues: dict[Request, tuple[asyncio.AbstractEventLoop, Queue]] = {}
        if executor.lag == 0:
            sys.setswitchinterval(SWITCH)
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, tokens: Sequence[int], params: SamplingParams) -> AsyncGenerator[Output]:
        """Stream one answer. Raises at once RequestError for a request beyond the limits, QueueFull, EngineStopped."""
        request, queue = Request(list(tokens), params), Queue()
        self._admit(request)
        self._queues[request] = (asyncio.get_running_loop(), queue)
        self._inbox.append(request)
        self._work.set()
        try:
            if self._stop:
                raise EngineStopped("the engine was shut down")
            for number in itertools.count():
                output = await queue.get()
                if isinstance(output, Exception):
                    raise output
                if number == 0 and request.scheduled is not None:
                    waited = request.scheduled - request.arrived
                    output = replace(output, queue_seconds=waited, cached_tokens=request.reused)
                yield output
                if output.finish_reason:
                    return
        finally:
            request.cancelled = True
            self._queues.pop(request, None)
            self._work.set()

    def load(self) -> Load:
        """Read from another thread than the loop's, so each figure is right by itself only."""
        scheduler, blocks = self.executor.scheduler, self.executor.blocks
        waiting = len(scheduler.waiting) + len(self._inbox)
        return Load(len(scheduler.running), waiting, 1 - blocks.available / blocks.total)

    def problem(self) -> str | None:
        """Why no answer can be expected now: it was shut down, or its last step failed."""
        return "the engine was shut down" if self._stop else self._failure or None

    def close(self) -> None:
        """Stop the loop after the step that runs; streams that are still open end with EngineStopped."""
        self._stop = True
        self._work.set()
        self._thread.join()
        self._fail(EngineStopped("the engine was shut down while this request ran"))

    def _admit(self, request: Request) -> None:
        self.executor.scheduler.check(request)
        seats = self.executor.engine.build.max_batch_size
        if self.max_queue_size is not None and len(self._queues) >= seats + self.max_queue_size:
            raise QueueFull(
                f"{seats} requests may run and {self.max_queue_size} wait (max_queue_size), and so many do; ask later."
            )

    def _loop(self) -> None:
        scheduler = self.executor.scheduler
        while not self._stop:
            self._work.clear()  # before the look at the inbox: what comes later sets it again
            while self._inbox:
                scheduler.add(self._inbox.popleft())
            try:
                if given := self.executor.step():
                    self._failure = ""
                    self._send(given)
            except Exception as error:
                self._failure = f"the last step of the engine failed: {type(error).__name__}: {error}"
                self._fail(error)
            if not (scheduler.waiting or scheduler.running):
                self._work.wait()

    def _send(self, given: Sequence[tuple[Request, Output | Exception]]) -> None:
        """One wake-up of an event loop for all tokens of a step, not one for each."""
        letters: defaultdict[asyncio.AbstractEventLoop, list[tuple[Queue, Output | Exception]]]
        letters = defaultdict(list)
        for request, output in given:
            if found := self._queues.get(request):
                letters[found[0]].append((found[1], output))
        for loop, batch in letters.items():
            with suppress(RuntimeError):  # that loop is closed: nobody waits there
                loop.call_soon_threadsafe(_deliver, batch)

    def _fail(self, error: Exception) -> None:
        """Nothing is lost in silence: whoever waits is told."""
        self.executor.abandon()
        self._inbox.clear()
        self._send([(request, error) for request in list(self._queues)])


def _deliver(batch: Sequence[tuple[Queue, Output | Exception]]) -> None:
    for queue, output in batch:
        queue.put_nowait(output)
