"""`engineroom triton`: render a model repository, check it, serve it, and start an OpenAI frontend for it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from engineroom.kit.command import application, run
from engineroom.tracing import switch
from engineroom.triton.deployment import Deployment, DeploymentError, describe

app = application(__doc__, no_args_is_help=True)
TracesEndpoint = Annotated[str | None, typer.Option(switch.OPTION, help=switch.HELP)]
Repository = Annotated[Path, typer.Argument(help="a model repository")]


@app.command()
def render(
    repository: Repository,
    engine_dir: Annotated[Path, typer.Option("--engine_dir", help="an absolute path, as Triton requires")],
    settings: Annotated[
        list[str] | None, typer.Argument(help=f"name:value of {', '.join(Deployment.model_fields)}")
    ] = None,
) -> None:
    """Write the model repository for an engine; the settings have the form that fill_template.py takes."""
    from engineroom.triton.render import render as write_repository

    fields: dict[str, object] = {"engine_dir": engine_dir}
    for setting in settings or []:
        name, _, value = setting.partition(":")
        if name in fields:
            raise DeploymentError(f"{name} is given twice. Give it once.")
        fields[name] = value
    write_repository(describe(**fields), repository)
    print(repository)


@app.command()
def check(repository: Repository) -> None:
    """Print the problems of a repository before the server meets them; the exit status is 1 if there are any."""
    from engineroom.triton.lint import lint

    problems = lint(repository)
    print(*(problems or [f"{repository}: no problems found."]), sep="\n")
    raise typer.Exit(1 if problems else 0)


@app.command()
def serve(
    repository: Repository,
    world_size: Annotated[int, typer.Option("--world_size", help="ranks of the engine, tp × pp")] = 1,
    otlp_traces_endpoint: TracesEndpoint = None,
) -> None:
    """Start Triton on free loopback ports and run it until SIGTERM or SIGINT, or until it ends by itself."""
    from engineroom.triton.server import serve as start_triton

    with start_triton(repository, world_size=world_size, otlp_traces_endpoint=otlp_traces_endpoint) as triton:
        print(f"HTTP {triton.url}\ngRPC {triton.grpc}\nmetrics {triton.metrics}", flush=True)
        while triton.server.alive():
            time.sleep(0.5)
        print(triton.server.excerpt(3), file=sys.stderr)
    raise typer.Exit(1)


@app.command()
def openai(
    engine_dir: Annotated[
        Path, typer.Argument(help="the engine that Triton serves, for its limits and tokenizer")
    ],
    grpc: Annotated[str, typer.Option("--grpc", help="Triton's gRPC host:port")] = "127.0.0.1:8001",
    url: Annotated[str, typer.Option("--url", help="Triton's HTTP address")] = "http://127.0.0.1:8000",
    metrics: Annotated[
        str, typer.Option("--metrics", help="Triton's Prometheus page")
    ] = "http://127.0.0.1:8002/metrics",
    host: Annotated[
        str, typer.Option("--host", help="127.0.0.1 accepts connections from this machine only")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 9000,
    served_model_name: Annotated[str, typer.Option("--served_model_name")] = "tensorrt_llm",
    request_timeout: Annotated[
        float, typer.Option("--request_timeout", help="seconds that one request may take")
    ] = 300,
    max_requests: Annotated[
        int, typer.Option("--max_requests", help="requests served at a time; further ones get status 429")
    ] = 512,
    api_key_file: Annotated[Path | None, typer.Option("--api_key_file", help="one key per line")] = None,
    otlp_traces_endpoint: TracesEndpoint = None,
) -> None:
    """Serve OpenAI's HTTP API with a running Triton behind it, over gRPC streaming."""
    from engineroom.triton.client import TritonBackend
    from engineroom.triton.frontend import read_api_keys, run_frontend

    keys = read_api_keys(api_key_file)
    backend = TritonBackend(grpc, url, metrics, request_timeout, max_requests)
    run_frontend(backend, engine_dir, served_model_name, host, port, keys, otlp_traces_endpoint)


if __name__ == "__main__":
    run(app)
