"""Run the executor's loop in a separate thread, and stream its output to async code."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams

# Seconds until a thread that waits for the GIL gets it. Python's default, 5 ms, is as long as several steps.
SWITCH_INTERVAL = 0.0005


class QueueFull(RuntimeError):
    """The engine has its maximum number of running and waiting requests; try again later."""


class EngineStopped(RuntimeError):
    """The engine was shut down and runs no more requests."""


@dataclass(frozen=True)
class EngineStats:
    """How busy an engine is; each value is NaN where it is not known.

    `kv_cache_usage`: the share, from 0 to 1, of the KV cache's blocks that running requests hold. `num_blocks` and
    `tokens_per_block` are the KV cache's size. `num_preemptions` has been counted since the start.
    """

    num_running_requests: float
    num_waiting_requests: float
    kv_cache_usage: float
    num_blocks: float = math.nan
    tokens_per_block: float = math.nan
    num_preemptions: float = math.nan


class Backend(Protocol):
    """Generates tokens: an AsyncExecutor, or a client of another server."""

    def generate(self, token_ids: Sequence[int], params: SamplingParams, /) -> AsyncGenerator[TokenOutput]:
        """Raises RequestError, QueueFull or EngineStopped before its first output. Closing it cancels the request."""
        ...

    def stats(self) -> EngineStats: ...

    def problem(self) -> str | None:
        """Why no output can be expected now; None if all is well."""
        ...


OutputQueue = asyncio.Queue[TokenOutput | Exception]


class AsyncExecutor:
    """Serves requests from async code: `async for output in executor.generate(token_ids, params)`.

    Leaving that loop early, or cancelling its task, cancels the request; its blocks are free before the next step. At
    most max_batch_size + `max_queue_size` requests are accepted at a time (TensorRT-LLM's name); None means no limit.

    On a CPU, AOTInductor holds the GIL while it computes a step, so the executor lowers Python's thread switch interval
    for the whole process (SWITCH_INTERVAL).
    """

    def __init__(self, executor: Executor, max_queue_size: int | None = None) -> None:
        self.executor, self.max_queue_size = executor, max_queue_size
        self._new_requests: deque[Request] = deque()
        self._queues: dict[Request, tuple[asyncio.AbstractEventLoop, OutputQueue]] = {}
        self._wake_up = threading.Event()
        self._stopped = False
        self._failure: str | None = None  # of the last step
        if executor.overlap == 0:
            sys.setswitchinterval(SWITCH_INTERVAL)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, token_ids: Sequence[int], params: SamplingParams) -> AsyncGenerator[TokenOutput]:
        """Stream the output of one prompt.

        Before the first token it raises RequestError for a request beyond the limits, QueueFull or EngineStopped.
        Later it raises EngineStopped, or the error that made a step fail.
        """
        request = Request(list(token_ids), params)
        self._check(request)
        queue: OutputQueue = asyncio.Queue()
        self._queues[request] = (asyncio.get_running_loop(), queue)
        self._new_requests.append(request)
        self._wake_up.set()
        try:
            if self._stopped:
                raise EngineStopped("the engine was shut down")
            finished, is_first = False, True
            while not finished:
                output = await queue.get()
                if isinstance(output, Exception):
                    raise output
                if output.error:
                    raise output.error
                finished = output.finish_reason is not None
                yield replace(output, metrics=request.metrics) if is_first else output
                is_first = False
        finally:
            request.cancelled = True
            self._queues.pop(request, None)
            self._wake_up.set()

    def stats(self) -> EngineStats:
        """The current load. The engine's thread runs meanwhile, so the values may belong to different steps."""
        scheduler, block_manager = self.executor.scheduler, self.executor.block_manager
        num_waiting = len(scheduler.waiting) + len(self._new_requests)
        usage = 1 - block_manager.num_free_blocks / block_manager.num_blocks
        return EngineStats(
            num_running_requests=len(scheduler.running),
            num_waiting_requests=num_waiting,
            kv_cache_usage=usage,
            num_blocks=block_manager.num_blocks,
            tokens_per_block=block_manager.tokens_per_block,
            num_preemptions=scheduler.num_preemptions,
        )

    def problem(self) -> str | None:
        """Why no output can be expected now: the engine was shut down, or its last step failed. None if all is well."""
        return "the engine was shut down" if self._stopped else self._failure

    def close(self) -> None:
        """Stop the loop after the current step; streams that are still open end with EngineStopped."""
        self._stopped = True
        self._wake_up.set()
        self._thread.join()
        self._fail_all(EngineStopped("the engine was shut down while this request ran"))

    def _check(self, request: Request) -> None:
        """Raises RequestError or QueueFull."""
        self.executor.scheduler.check(request)
        if self.max_queue_size is None:
            return
        max_batch_size = self.executor.engine.limits.max_batch_size
        if len(self._queues) >= max_batch_size + self.max_queue_size:
            raise QueueFull(
                f"{max_batch_size} requests may run and {self.max_queue_size} wait (max_queue_size). "
                f"The queue is full; try again later."
            )

    def _run(self) -> None:
        """The engine's thread."""
        scheduler = self.executor.scheduler
        while not self._stopped:
            self._wake_up.clear()  # before the queue of new requests is read: a later request sets it again
            while self._new_requests:
                scheduler.add(self._new_requests.popleft())
            self._step()
            if not scheduler.has_requests:
                self._wake_up.wait()

    def _step(self) -> None:
        try:
            outputs = self.executor.step()
        except Exception as error:  # noqa: BLE001 - whatever fails in a step, each request's stream raises it
            self._failure = f"the last step of the engine failed: {type(error).__name__}: {error}"
            self._fail_all(error)
            return
        if outputs:
            self._failure = None
            self._send(outputs)

    def _send(self, outputs: Sequence[tuple[Request, TokenOutput | Exception]]) -> None:
        """Put each output into its request's queue, with one wake-up of an event loop for all tokens of a step."""
        batches: defaultdict[asyncio.AbstractEventLoop, list[tuple[OutputQueue, TokenOutput | Exception]]]
        batches = defaultdict(list)
        for request, output in outputs:
            entry = self._queues.get(request)
            if entry is None:  # its client has left
                continue
            loop, queue = entry
            batches[loop].append((queue, output))
        for loop, batch in batches.items():
            with suppress(RuntimeError):  # the loop is closed: nobody reads these queues any more
                loop.call_soon_threadsafe(_put_all, batch)

    def _fail_all(self, error: Exception) -> None:
        """Drop all requests, and let every open stream raise `error`."""
        self.executor.abort_all()
        self._new_requests.clear()
        self._send([(request, error) for request in list(self._queues)])


def _put_all(batch: Sequence[tuple[OutputQueue, TokenOutput | Exception]]) -> None:
    for queue, output in batch:
        queue.put_nowait(output)
