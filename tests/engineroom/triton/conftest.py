"""One Triton server with all five models, and its OpenAI frontend; all tests share them."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openai
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from engineroom.engine.directory import TOKENIZER, EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.kit import keeper
from engineroom.kit.process import Server
from engineroom.openai.text import Vocabulary
from engineroom.triton import client as triton_client
from engineroom.triton.deployment import describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.render import render
from engineroom.triton.server import Triton, serve
from labs.deploy_with_triton.requests import engine_steps
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]
KV_CACHE_TOKENS = 1024  # less than six sequences of 256 tokens, of which the engine runs that many at a time
MAX_QUEUE_SIZE = 200
SETTINGS = {
    "max_tokens_in_paged_kv_cache": KV_CACHE_TOKENS,
    "max_queue_size": MAX_QUEUE_SIZE,
    "cancellation_check_period_ms": 20,
}
DTYPES = {int: np.int32, float: np.float32, bool: bool, str: object, bytes: object}
StartTriton = Callable[..., Triton]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def vocabulary(engine: EngineDir) -> Vocabulary:
    return Vocabulary(engine.path / TOKENIZER)


@pytest.fixture(scope="session")
def executor(engine: EngineDir) -> Executor:
    """The same engine without Triton."""
    return Executor(engine, KvCacheConfig(max_tokens=KV_CACHE_TOKENS, enable_block_reuse=False))


@pytest.fixture(scope="session")
def repository(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    deployment = describe(engine_dir=engine.path, **SETTINGS)
    return render(deployment, tmp_path_factory.mktemp("triton") / "repository")


@pytest.fixture(scope="session")
def start_triton(tmp_path_factory: pytest.TempPathFactory) -> StartTriton:
    """Starts Triton with a repository; the caller stops it."""
    home = str(tmp_path_factory.mktemp("home"))

    def start(repository: Path) -> Triton:
        with (
            pytest.MonkeyPatch.context() as patch
        ):  # only while Triton starts: the build cache is at home too
            patch.setenv("ENGINEROOM_HOME", home)
            return serve(repository, name=f"triton {repository.parent.name}")

    return start


@pytest.fixture(scope="package")
def triton(start_triton: StartTriton, repository: Path) -> Iterator[Triton]:
    with start_triton(repository) as triton:
        yield triton


@pytest.fixture(scope="package")
def frontend(triton: Triton, engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    api_key_file = tmp_path_factory.mktemp("keys") / "keys"
    api_key_file.write_text("sesame\nopen\n")
    options = {
        "api_key_file": api_key_file,
        "request_timeout": 20,
        "max_requests": 200,
        "served_model_name": "course",
    }
    with serve_openai(triton, engine.path, **options) as server:
        yield server


@pytest.fixture
def client(frontend: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{frontend.url}/v1", api_key="sesame", max_retries=0)


def infer_inputs(**values: Any) -> list[InferInput]:
    """Tensors of one sequence, as a client of NVIDIA's backend sends them: [1, n]. An array is sent as it is."""
    arrays = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        else:
            row = value if isinstance(value, list) else [value]
            arrays[name] = np.array([row], DTYPES[type(row[0])])
    return triton_client.infer_inputs(arrays)


def stream(triton: Triton, model: str, **values: Any) -> list[InferResult]:
    """All responses to one request over tritonclient's decoupled stream. Raises InferenceServerException."""
    arrivals: queue.Queue[tuple[InferResult, InferenceServerException | None]] = queue.Queue()
    with InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: arrivals.put((result, error)))
        client.async_stream_infer(model, infer_inputs(**values), enable_empty_final_response=True)
        results = []
        while True:
            result, error = arrivals.get(timeout=60)
            if error:
                raise error
            response = result.get_response()
            if response.outputs:
                results.append(result)
            if response.parameters["triton_final_response"].bool_param:
                return results


def steps(triton: Triton) -> int:
    """Steps of the engine so far, read once it is idle; each step gives a token to every running request."""
    readings = [engine_steps(triton)]
    while len(readings) < 3 or readings[-1] > readings[-3]:
        time.sleep(0.2)  # ten times cancellation_check_period_ms, in which the model publishes its figures
        readings.append(engine_steps(triton))
    return readings[-1]


def commands(triton: Triton) -> dict[psutil.Process, str]:
    """The server's running processes, each with the first two words of its command; a stub's second is its model.py."""
    commands = {}
    for process in psutil.Process(triton.server.pid).children(recursive=True):
        with suppress(psutil.Error):
            commands[process] = " ".join(process.cmdline()[:2])
    return commands


def shm_files(owner: int | None = None) -> set[str]:
    """Files in /dev/shm of servers that the process `owner` started, by default this one."""
    prefix = f"engineroom{owner or os.getpid()}_"
    return {file for file in keeper.shm_files() if prefix in file}
