"""OpenAI's HTTP API before a Triton server: the HTTP code of engineroom/openai, with API keys."""

from __future__ import annotations

import hmac
import sys
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from engineroom.engine.directory import TOKENIZER, open_engine
from engineroom.kit.process import Server, start
from engineroom.openai.app import create_app
from engineroom.openai.http import failed
from engineroom.openai.protocol import Failure, Problem
from engineroom.openai.text import Vocabulary
from engineroom.triton.client import TritonBackend
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.server import Triton

GRACE = 2  # seconds that open streams have after SIGTERM


class ApiKeys:
    """Below /v1 only with `Authorization: Bearer KEY`; without keys everybody may ask."""

    def __init__(self, app: ASGIApp, keys: list[str]) -> None:
        self.app, self.keys = app, [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope.get("headers", [])).get(b"authorization", b"").removeprefix(b"Bearer ")
        known = [hmac.compare_digest(given, key) for key in self.keys]
        if scope["type"] != "http" or not scope["path"].startswith("/v1") or not known or any(known):
            return await self.app(scope, receive, send)
        problem = "This server asks for an API key: send the header `Authorization: Bearer KEY`."
        kind = {"type": "invalid_request_error", "code": "invalid_api_key"}
        answer = failed(401, Failure(error=Problem(message=problem, **kind)), {"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)


def read_keys(file: Path | None) -> list[str]:
    """One key a line. Raises DeploymentError for a file that cannot be read or has none."""
    if file is None:
        return []
    try:
        keys = file.read_text().split()
    except OSError as error:
        raise DeploymentError(f"--api_key_file {file}: {error.strerror}.") from None
    if not keys or not all(map(str.isascii, keys)):
        raise DeploymentError(f"--api_key_file {file}: expected one key of ASCII letters in each line.")
    return keys


def run(backend: TritonBackend, engine_dir: Path, name: str, host: str, port: int, keys: list[str]) -> None:
    """Serve until SIGTERM or SIGINT. The engine directory tells its limits and has the tokenizer."""
    engine = open_engine(engine_dir)
    if not (engine.path / TOKENIZER).is_dir():
        raise DeploymentError(f"{engine_dir} has no tokenizer. Build it with --tokenizer_dir.")
    app = create_app(backend, Vocabulary(engine.path / TOKENIZER), name, int(engine.build.max_seq_len or 0))
    app.add_middleware(ApiKeys, keys=keys)
    with suppress(KeyboardInterrupt):
        uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=GRACE)


def serve_openai(
    triton: Triton, engine_dir: str | Path, *, name: str = "openai", timeout: float = 120, **options: object
) -> Server:
    """`engineroom triton openai` on a free port before a running Triton; the process kit stops it.

    A second call of the same `name` replaces the first server. `options` are those of the command, such as
    request_timeout=10. Raises ServerFailed with the end of the log.
    """
    line = [sys.executable, "-m", "engineroom.triton", "openai", str(engine_dir), "--port", "{port}"]
    line += ["--grpc", triton.grpc, "--url", triton.url, "--metrics", triton.metrics]
    for option, value in options.items():
        line += [f"--{option}", str(value)]
    return start(line, name=name, timeout=timeout)
