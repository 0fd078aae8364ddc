"""`engineroom triton`: render a model repository, check it, serve it; OpenAI's API before it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from engineroom.kit.command import application, run
from engineroom.triton.deployment import Deployment, describe

app = application(__doc__, no_args_is_help=True)
Repository = Annotated[Path, typer.Argument(help="a model repository")]


@app.command()
def render(
    repository: Repository,
    engine_dir: Annotated[Path, typer.Option("--engine_dir", help="absolute, as Triton wants it")],
    settings: Annotated[
        list[str] | None, typer.Argument(help=f"name:value of {', '.join(Deployment.model_fields)}")
    ] = None,
) -> None:
    """Write the repository of inflight_batcher_llm for an engine; settings as fill_template.py takes them."""
    from engineroom.triton.render import render as write

    pairs = [one.partition(":") for one in settings or []]
    write(describe(engine_dir=engine_dir, **{name: value for name, _, value in pairs}), repository)
    print(repository)


@app.command()
def check(repository: Repository) -> None:
    """Say what is wrong with a repository before the server does; the exit status is 1 then."""
    from engineroom.triton.lint import lint

    found = lint(repository)
    print(*(found or [f"{repository}: nothing wrong was found."]), sep="\n")
    raise typer.Exit(1 if found else 0)


@app.command()
def serve(
    repository: Repository,
    world_size: Annotated[int, typer.Option("--world_size", help="ranks of the engine, tp × pp")] = 1,
) -> None:
    """Start Triton on free loopback ports, until SIGTERM, SIGINT or its own end."""
    from engineroom.triton.server import serve as begin

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # even where SIGINT is ignored, as under nohup
    with begin(repository, world_size=world_size) as triton:
        print(f"HTTP {triton.url}\ngRPC {triton.grpc}\nmetrics {triton.metrics}", flush=True)
        try:
            while triton.server.alive():
                time.sleep(0.5)
            print(triton.server.logs(3), file=sys.stderr)
        except KeyboardInterrupt:
            return
    raise typer.Exit(1)


@app.command()
def openai(
    engine_dir: Annotated[Path, typer.Argument(help="the engine that Triton serves: limits and tokenizer")],
    grpc: Annotated[str, typer.Option("--grpc")] = "127.0.0.1:8001",
    url: Annotated[str, typer.Option("--url")] = "http://127.0.0.1:8000",
    metrics: Annotated[str, typer.Option("--metrics")] = "http://127.0.0.1:8002/metrics",
    host: Annotated[str, typer.Option("--host", help="127.0.0.1: this machine only")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 9000,
    served_model_name: Annotated[str, typer.Option("--served_model_name")] = "tensorrt_llm",
    request_timeout: Annotated[float, typer.Option("--request_timeout", help="seconds for one answer")] = 300,
    max_requests: Annotated[
        int, typer.Option("--max_requests", help="answers at a time; more get 429")
    ] = 512,
    api_key_file: Annotated[Path | None, typer.Option("--api_key_file", help="one key a line")] = None,
) -> None:
    """OpenAI's HTTP API over Triton's gRPC streaming."""
    from engineroom.triton.client import TritonBackend
    from engineroom.triton.frontend import read_keys, run

    keys = read_keys(api_key_file)
    backend = TritonBackend(grpc, url, metrics, request_timeout, max_requests)
    run(backend, engine_dir, served_model_name, host, port, keys)


if __name__ == "__main__":
    run(app)
