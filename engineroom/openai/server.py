"""Serve one engine on one port until a signal ends it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import uvicorn

from engineroom.engine.directory import TOKENIZER, EngineError, open_engine
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.scheduler import CapacitySchedulerPolicy
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary
from engineroom.tracing.instrument import trace_app, traced_backend
from engineroom.tracing.switch import start_tracing

GRACE = 2  # seconds that running requests have after SIGTERM or SIGINT


class EngineServer(uvicorn.Server):
    """After a signal it accepts no new requests. Running requests may finish; after GRACE seconds they are ended."""

    def __init__(self, config: uvicorn.Config, executor: AsyncExecutor) -> None:
        super().__init__(config)
        self.executor = executor

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.create_task(self._close_executor())
        await super().shutdown(sockets)
        closing.cancel()

    async def _close_executor(self) -> None:
        await asyncio.sleep(GRACE)
        await asyncio.to_thread(self.executor.close)


def serve_engine_directory(
    engine_dir: Path,
    host: str,
    port: int,
    name: str | None,
    kv_cache_config: KvCacheConfig,
    policy: CapacitySchedulerPolicy,
    max_queue_size: int,
    otlp_traces_endpoint: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. Spans go to the collector at `otlp_traces_endpoint`; None means no tracing.

    Raises EngineError for an engine that cannot run here or has no tokenizer, and TracingError.
    """
    tracing = start_tracing(otlp_traces_endpoint, "engine")
    engine = open_engine(engine_dir)
    if not (engine.path / TOKENIZER).is_dir():
        raise EngineError(f"{engine_dir} has no tokenizer. Build it with --tokenizer_dir.")
    vocabulary = Vocabulary(engine.path / TOKENIZER)
    executor = AsyncExecutor(Executor(engine, kv_cache_config, policy), max_queue_size)
    block_manager = executor.executor.block_manager
    cache_tokens = block_manager.num_blocks * block_manager.tokens_per_block
    max_seq_len = min(engine.limits.max_seq_len, cache_tokens)
    model = name or engine.path.resolve().name
    app = create_app(traced_backend(executor, tracing, model), vocabulary, model, max_seq_len)
    trace_app(app, tracing)
    config = uvicorn.Config(app, host, port, access_log=False, timeout_graceful_shutdown=2 * GRACE)
    try:
        EngineServer(config, executor).run()  # it raises the signal again after the shutdown
    finally:
        executor.close()
