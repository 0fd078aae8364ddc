"""The engine behind Triton's Python backend, with the tensors of NVIDIA's `tensorrtllm` backend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from engineroom.engine import Executor, KvCacheConfig
from engineroom.triton.backend.inflight import InFlight, together
from engineroom.triton.backend.request import answer, read
from engineroom.triton.backend.sender import Sender


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.exclude = given["exclude_input_in_output"] == "true"
        kv = KvCacheConfig(
            int(given["max_tokens_in_paged_kv_cache"] or 0) or None,
            float(given["kv_cache_free_gpu_mem_fraction"]),
            given["enable_kv_cache_reuse"] == "true",
        )
        executor = Executor(given["gpt_model_path"], kv, given["batch_scheduler_policy"])
        self.vocabulary = executor.engine.model.vocab_size
        decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        queue = config.get("dynamic_batching", {}).get("default_queue_policy", {}).get("max_queue_size", 0)
        period = int(given["cancellation_check_period_ms"]) / 1000
        self.requests = InFlight(executor, self.answer, decoupled, queue, period, args["model_version"])

    def execute(self, requests: Sequence[Any]) -> None:
        self.requests.begin(requests)

    async def answer(self, tensors: dict[str, Any], sender: Sender) -> None:
        """A streamed response has the tokens since the last one: one, unless sending takes longer than computing."""
        asked, outputs = read(tensors, self.vocabulary, self.exclude), []
        streaming = self.requests.check_streaming(asked.streaming)
        stream = self.requests.engine.generate(asked.tokens, asked.params)
        async with aclosing(together(stream)) as parts:
            async for part in parts:
                outputs += part
                if streaming or part[-1].finish_reason:
                    first = len(outputs) - len(part) if streaming else 0
                    sender.send(answer(asked, outputs, first), final=part[-1].finish_reason is not None)

    def finalize(self) -> None:
        self.requests.close()
