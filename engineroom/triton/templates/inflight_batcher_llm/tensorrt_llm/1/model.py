"""The engine behind Triton's Python backend, with the tensors of NVIDIA's `tensorrtllm` backend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from engineroom.engine import Executor, KvCacheConfig
from engineroom.engine.runtime.request import TokenOutput
from engineroom.triton.backend.inflight import InflightRequests, coalesce
from engineroom.triton.backend.parameters import EngineParameters
from engineroom.triton.backend.request import parse_request, response_tensors
from engineroom.triton.backend.sender import ResponseSender


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = EngineParameters.read(config)
        self.exclude_input_in_output = parameters.exclude_input_in_output
        kv_cache = KvCacheConfig(
            parameters.max_tokens_in_paged_kv_cache,
            parameters.kv_cache_free_gpu_mem_fraction,
            parameters.enable_kv_cache_reuse,
        )
        executor = Executor(parameters.gpt_model_path, kv_cache, parameters.batch_scheduler_policy)
        parameters.check_beam_width(executor.engine.limits.max_beam_width)
        self.vocab_size = executor.engine.model.vocab_size
        queue_policy = config.get("dynamic_batching", {}).get("default_queue_policy", {})
        self.requests = InflightRequests(
            executor,
            self.handle,
            config.get("model_transaction_policy", {}).get("decoupled", False),
            queue_policy.get("max_queue_size", 0),
            parameters.cancellation_check_period_ms / 1000,
            args["model_version"],
        )

    def execute(self, requests: Sequence[Any]) -> None:
        self.requests.submit(requests)

    async def handle(self, tensors: dict[str, Any], sender: ResponseSender) -> None:
        """Send one response for each batch of tokens while streaming, else one response with all of them."""
        request = parse_request(tensors, self.vocab_size, self.exclude_input_in_output)
        self.requests.check_streaming(request.streaming)
        outputs: list[TokenOutput] = []
        stream = self.requests.engine.generate(request.token_ids, request.params)
        async with aclosing(coalesce(stream)) as batches:
            async for batch in batches:
                outputs += batch
                final = batch[-1].finish_reason is not None
                if request.streaming or final:
                    first = len(outputs) - len(batch) if request.streaming else 0
                    sender.send(response_tensors(request, outputs, first), final=final)

    def finalize(self) -> None:
        self.requests.close()
