"""The engine behind Triton's Python backend, with the tensors of NVIDIA's `tensorrtllm` backend.

`execute` returns at once and each request is answered from one event loop, so that all of them are in flight together.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import triton_python_backend_utils as pb

from labs.engine import AsyncExecutor, Executor, KvCacheConfig, RequestError
from labs.engine.runtime.async_executor import EngineStopped, Load, QueueFull
from labs.triton.request import Asked, answer, read
from labs.triton.sender import Sender, receive

CODES = {
    RequestError: "INVALID_ARG",
    QueueFull: "UNAVAILABLE",
    EngineStopped: "UNAVAILABLE",
    asyncio.CancelledError: "CANCELLED",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.exclude = given["exclude_input_in_output"] == "true"
        self.period = int(given["cancellation_check_period_ms"]) / 1000
        kv = KvCacheConfig(
            int(given["max_tokens_in_paged_kv_cache"] or 0) or None,
            float(given["kv_cache_free_gpu_mem_fraction"]),
            given["enable_kv_cache_reuse"] == "true",
        )
        executor = Executor(given["gpt_model_path"], kv, given["batch_scheduler_policy"])
        queue = config.get("dynamic_batching", {}).get("default_queue_policy", {}).get("max_queue_size", 0)
        self.engine = AsyncExecutor(executor, queue or None)
        self.vocabulary = executor.engine.model.vocab_size
        self.open: dict[asyncio.Task[None], tuple[str, Sender]] = {}
        self.gauges = Gauges(executor)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="requests", daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.watch(), self.loop)

    def execute(self, requests: Sequence[Any]) -> None:
        for one in receive(requests):
            self.loop.call_soon_threadsafe(self.begin, *one)

    def begin(self, name: str, tensors: dict[str, Any], sender: Sender) -> None:
        if "stop" in tensors and tensors["stop"].any():
            for task in [task for task, (other, _) in self.open.items() if other == name != ""]:
                task.cancel()
            sender.send({}, final=True)
            return
        task = self.loop.create_task(self.serve(tensors, sender))
        self.open[task] = (name, sender)
        task.add_done_callback(self.end)

    def end(self, task: asyncio.Task[None]) -> None:
        """A task that was cancelled before its first step has told nobody."""
        self.open.pop(task)[1].fail("the request was cancelled.", "CANCELLED")

    async def serve(self, tensors: dict[str, Any], sender: Sender) -> None:
        """Answer one request; whatever happens, its last response is sent, once."""
        try:
            asked = read(tensors, self.vocabulary, self.exclude)
            if asked.streaming and not self.decoupled:
                raise RequestError(
                    "streaming: this model is not decoupled; render it with decoupled_mode true."
                )
            await self.generate(asked, sender)
        except BaseException as error:
            code = next((CODES[kind] for kind in CODES if isinstance(error, kind)), "INTERNAL")
            sender.fail(str(error) or "the request was cancelled.", code)

    async def generate(self, asked: Asked, sender: Sender) -> None:
        outputs = []
        async with aclosing(self.engine.generate(asked.tokens, asked.params)) as stream:
            async for output in stream:
                outputs.append(output)
                if asked.streaming or output.finish_reason:
                    first = len(outputs) - 1 if asked.streaming else 0
                    sender.send(answer(asked, outputs, first), final=output.finish_reason is not None)

    async def watch(self) -> None:
        """Find the requests whose client has gone, and tell Prometheus how full the engine is."""
        while True:
            await asyncio.sleep(self.period)
            for task, (_, sender) in list(self.open.items()):
                if sender.cancelled():
                    task.cancel()
            self.gauges.update(self.engine.load())

    def finalize(self) -> None:
        self.engine.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class Gauges:
    """The figures of NVIDIA's backend that this engine has, by their names and labels."""

    def __init__(self, executor: Executor) -> None:
        self.blocks, self.seats = executor.blocks, executor.engine.build.max_batch_size
        self.families = [
            pb.MetricFamily(
                f"nv_trt_llm_{name}_metrics", f"{name} figures of the engine", pb.MetricFamily.GAUGE
            )
            for name in ("request", "kv_cache_block")
        ]
        self.gauges: dict[str, Any] = {}

    def update(self, load: Load) -> None:
        total, free = self.blocks.total, self.blocks.available
        active = load.running + load.waiting
        requests = {"active": active, "scheduled": load.running, "waiting": load.waiting, "max": self.seats}
        blocks = {
            "max": total,
            "used": total - free,
            "free": free,
            "tokens_per": self.blocks.tokens_per_block,
        }
        labels = ("request_type", "kv_cache_block_type")
        for family, label, values in zip(self.families, labels, (requests, blocks), strict=True):
            for kind, value in values.items():
                key = f"{label} {kind}"
                if key not in self.gauges:
                    self.gauges[key] = family.Metric({label: kind, "model": "tensorrt_llm", "version": "1"})
                self.gauges[key].set(value)
