"""One engine on one port, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import uvicorn

from engineroom.engine.directory import TOKENIZER, EngineError, open_engine
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.scheduler import Policy
from engineroom.openai.app import create_app
from engineroom.openai.text import Vocabulary

GRACE = 2  # seconds that open streams have after SIGTERM or SIGINT


class Server(uvicorn.Server):
    """At a signal nothing new is taken; what runs may end, and is told after GRACE seconds."""

    def __init__(self, config: uvicorn.Config, executor: AsyncExecutor) -> None:
        super().__init__(config)
        self.executor = executor

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ending = asyncio.create_task(self._end())
        await super().shutdown(sockets)
        ending.cancel()

    async def _end(self) -> None:
        await asyncio.sleep(GRACE)
        await asyncio.to_thread(self.executor.close)


def serve_engine_directory(
    engine: Path,
    host: str,
    port: int,
    name: str | None,
    kv: KvCacheConfig,
    policy: Policy,
    max_queue_size: int,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises EngineError for an engine that cannot run here or has no tokenizer."""
    made = open_engine(engine)
    if not (made.path / TOKENIZER).is_dir():
        raise EngineError(f"{engine} has no tokenizer. Build it with --tokenizer_dir.")
    vocabulary = Vocabulary(made.path / TOKENIZER)
    executor = AsyncExecutor(Executor(made, kv, policy), max_queue_size)
    blocks = executor.executor.blocks
    most = min(int(made.build.max_seq_len or 0), blocks.total * blocks.tokens_per_block)
    app = create_app(executor, vocabulary, name or made.path.resolve().name, most)
    config = uvicorn.Config(app, host, port, access_log=False, timeout_graceful_shutdown=2 * GRACE)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all is done
        Server(config, executor).run()
    executor.close()
