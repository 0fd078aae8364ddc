"""`engineroom serve ENGINE`: an engine behind OpenAI's HTTP API; the options have TensorRT-LLM's names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engineroom.engine.runtime.executor import KvCacheConfig
from engineroom.engine.runtime.scheduler import CapacitySchedulerPolicy
from engineroom.kit.command import application, run
from engineroom.openai.server import serve_engine_directory
from engineroom.tracing import switch

app = application(None)


@app.command()
def serve(
    engine: Annotated[Path, typer.Argument(help="An engine directory with a tokenizer.")],
    host: Annotated[
        str, typer.Option("--host", help="127.0.0.1 is reachable from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8000,
    served_model_name: Annotated[
        str | None, typer.Option("--served_model_name", help="The default is the folder's name.")
    ] = None,
    max_queue_size: Annotated[
        int,
        typer.Option(
            "--max_queue_size", help="Requests that may wait while max_batch_size run; more get status 429."
        ),
    ] = 256,
    max_tokens_in_paged_kv_cache: Annotated[
        int | None,
        typer.Option(
            "--max_tokens_in_paged_kv_cache",
            help="Tokens that the KV cache holds; default: a share of free memory.",
        ),
    ] = None,
    kv_cache_free_gpu_memory_fraction: Annotated[
        float,
        typer.Option(
            "--kv_cache_free_gpu_memory_fraction", help="Share of the free GPU memory for the KV cache."
        ),
    ] = 0.9,
    enable_block_reuse: Annotated[
        bool,
        typer.Option(
            "--enable_block_reuse/--no-enable_block_reuse",
            help="Requests with equal prefixes share KV blocks.",
        ),
    ] = True,
    batch_scheduler_policy: Annotated[
        CapacitySchedulerPolicy, typer.Option("--batch_scheduler_policy")
    ] = "guaranteed_no_evict",
    otlp_traces_endpoint: Annotated[str | None, typer.Option(switch.OPTION, help=switch.HELP)] = None,
) -> None:
    """Serve an engine that was built with --tokenizer_dir over OpenAI's HTTP API, until SIGTERM or SIGINT."""
    kv_cache_config = KvCacheConfig(
        max_tokens=max_tokens_in_paged_kv_cache,
        free_gpu_memory_fraction=kv_cache_free_gpu_memory_fraction,
        enable_block_reuse=enable_block_reuse,
    )
    serve_engine_directory(
        engine, host, port, served_model_name, kv_cache_config, batch_scheduler_policy, max_queue_size,
        otlp_traces_endpoint,
    )  # fmt: skip


if __name__ == "__main__":
    run(app)
