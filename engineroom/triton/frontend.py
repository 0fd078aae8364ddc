"""The OpenAI frontend of a Triton server: the HTTP API of engineroom/openai, with API keys."""

from __future__ import annotations

import hmac
import sys
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from engineroom.engine.directory import TOKENIZER, open_engine
from engineroom.kit.process import Server, start
from engineroom.openai.app import create_app
from engineroom.openai.http import error_response
from engineroom.openai.response import ErrorInfo, ErrorResponse
from engineroom.openai.text import Vocabulary
from engineroom.tracing.instrument import trace_app, traced_backend
from engineroom.tracing.switch import start_tracing
from engineroom.triton.client import TritonBackend
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.server import Triton

GRACE = 2  # seconds that open streams have after SIGTERM


class ApiKeyMiddleware:
    """Paths below /v1 require `Authorization: Bearer KEY` with one of the keys; without keys they are open."""

    def __init__(self, app: ASGIApp, keys: list[str]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1") or self._authorized(scope):
            await self.app(scope, receive, send)
            return
        error = ErrorInfo(
            message="This server requires an API key. Send the header `Authorization: Bearer KEY`.",
            type="invalid_request_error",
            code="invalid_api_key",
        )
        response = error_response(401, ErrorResponse(error=error), {"WWW-Authenticate": "Bearer"})
        await response(scope, receive, send)

    def _authorized(self, scope: Scope) -> bool:
        key = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        # Compare with every key, each in constant time: the time taken reveals nothing about the keys.
        matches = [hmac.compare_digest(key, valid_key) for valid_key in self.keys]
        return not self.keys or any(matches)


def read_api_keys(path: Path | None) -> list[str]:
    """The keys of a file, one in each line. Raises DeploymentError for an unreadable file and one without keys."""
    if path is None:
        return []
    try:
        keys = path.read_text().split()
    except OSError as error:
        raise DeploymentError(f"--api_key_file {path}: {error.strerror}.") from None
    if not keys or not all(map(str.isascii, keys)):
        raise DeploymentError(f"--api_key_file {path}: expected one key of ASCII letters in each line.")
    return keys


def run_frontend(
    backend: TritonBackend, engine_dir: Path, served_model_name: str, host: str, port: int, keys: list[str],
    otlp_traces_endpoint: str | None = None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT. The limits and the tokenizer are those of the engine directory.

    Spans go to the collector at `otlp_traces_endpoint`; None means no tracing. Raises TracingError.
    """
    tracing = start_tracing(otlp_traces_endpoint, "openai")
    engine = open_engine(engine_dir)
    tokenizer_dir = engine.path / TOKENIZER
    if not tokenizer_dir.is_dir():
        raise DeploymentError(f"{engine_dir} has no tokenizer. Build the engine with --tokenizer_dir.")
    traced = traced_backend(backend, tracing, served_model_name, backend.generate)
    app = create_app(traced, Vocabulary(tokenizer_dir), served_model_name, engine.limits.max_seq_len)
    app.add_middleware(ApiKeyMiddleware, keys=keys)
    trace_app(app, tracing)
    uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=GRACE)


def serve_openai(
    triton: Triton, engine_dir: str | Path, *, name: str = "openai", timeout: float = 120, **options: object
) -> Server:
    """Start `engineroom triton openai` on a free port, as the frontend of a running Triton.

    A second call with the same `name` replaces the first server. `options` are those of the command, such as
    request_timeout=10. Raises ServerFailed with the end of the log.
    """
    command = [sys.executable, "-m", "engineroom.triton", "openai", str(engine_dir), "--port", "{port}"]
    command += ["--grpc", triton.grpc, "--url", triton.url, "--metrics", triton.metrics]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    return start(command, name=name, timeout=timeout)
