"""The engine's gauges on Triton's metrics page; importable inside Triton only."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import triton_python_backend_utils as pb

from engineroom.engine import Executor
from engineroom.engine.runtime.async_executor import EngineStats


class EngineGauges:
    """Those gauges of NVIDIA's backend that this engine can fill, with NVIDIA's names and labels."""

    LABELS: ClassVar = {
        "request": "request_type",
        "kv_cache_block": "kv_cache_block_type",
        "general": "general_type",
    }

    def __init__(self, executor: Executor, version: str) -> None:
        self.executor, self.version = executor, version
        self.families = {
            family: pb.MetricFamily(
                f"nv_trt_llm_{family}_metrics", f"{family} figures of the engine", pb.MetricFamily.GAUGE
            )
            for family in self.LABELS
        }
        self.gauges: dict[tuple[str, str], Any] = {}

    def update(self, stats: EngineStats) -> None:
        block_manager = self.executor.block_manager
        self._set(
            "request",
            active=stats.num_running_requests + stats.num_waiting_requests,
            scheduled=stats.num_running_requests,
            waiting=stats.num_waiting_requests,
            max=self.executor.engine.limits.max_batch_size,
        )
        self._set(
            "kv_cache_block",
            max=block_manager.num_blocks,
            used=block_manager.num_blocks - block_manager.num_free_blocks,
            free=block_manager.num_free_blocks,
            tokens_per=block_manager.tokens_per_block,
        )
        self._set("general", iteration_counter=self.executor.num_steps)

    def close(self) -> None:
        """Remove this version's gauges from Triton's page; those of another version may stay."""
        self.gauges.clear()
        self.families.clear()

    def _set(self, family: str, **values: float) -> None:
        for kind, value in values.items():
            if (family, kind) not in self.gauges:
                # Triton keeps one object for equal labels, and the first process to end deletes it for all. The
                # process id makes the labels unique.
                labels = {self.LABELS[family]: kind, "model": "tensorrt_llm", "version": self.version}
                labels["process"] = str(os.getpid())
                self.gauges[family, kind] = self.families[family].Metric(labels)
            self.gauges[family, kind].set(value)
