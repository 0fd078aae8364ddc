"""`engineroom serve ENGINE`: an engine behind OpenAI's HTTP API, with the options of TensorRT-LLM's names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engineroom.engine.runtime.executor import KvCacheConfig
from engineroom.kit.command import application, run
from engineroom.openai.server import serve_engine_directory

app = application(None)


@app.command()
def serve(
    engine: Annotated[Path, typer.Argument(help="an engine directory with a tokenizer")],
    host: Annotated[str, typer.Option("--host", help="127.0.0.1: this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8000,
    served_model_name: Annotated[
        str | None, typer.Option("--served_model_name", help="the folder's name if not given")
    ] = None,
    max_queue_size: Annotated[
        int,
        typer.Option("--max_queue_size", help="requests that may wait beside max_batch_size; more get 429"),
    ] = 256,
    max_tokens_in_paged_kv_cache: Annotated[
        int | None, typer.Option("--max_tokens_in_paged_kv_cache", help="wins over the share of memory")
    ] = None,
    kv_cache_free_gpu_memory_fraction: Annotated[
        float, typer.Option("--kv_cache_free_gpu_memory_fraction")
    ] = 0.9,
    enable_block_reuse: Annotated[
        bool, typer.Option("--enable_block_reuse/--no-enable_block_reuse", help="share equal prefixes")
    ] = True,
    batch_scheduler_policy: Annotated[
        str, typer.Option("--batch_scheduler_policy", help="guaranteed_no_evict or max_utilization")
    ] = "guaranteed_no_evict",
) -> None:
    """OpenAI's HTTP API over an engine that was built with --tokenizer_dir, until SIGTERM or SIGINT."""
    kv = KvCacheConfig(max_tokens_in_paged_kv_cache, kv_cache_free_gpu_memory_fraction, enable_block_reuse)
    serve_engine_directory(engine, host, port, served_model_name, kv, batch_scheduler_policy, max_queue_size)


if __name__ == "__main__":
    run(app)
