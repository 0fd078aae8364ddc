"""One Triton with all five models for all tests, and OpenAI's API before it."""

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
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from engineroom.engine.directory import TOKENIZER, EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.kit import keeper
from engineroom.kit.process import Server
from engineroom.openai.text import Vocabulary
from engineroom.triton.deployment import describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.render import render
from engineroom.triton.server import Triton, serve
from labs.deploy_with_triton.requests import engine_steps
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]
CACHE = 1024  # tokens of KV cache, fewer than the engine's six sequences of 256
QUEUE = 200
SETTINGS = {
    "max_tokens_in_paged_kv_cache": CACHE,
    "max_queue_size": QUEUE,
    "cancellation_check_period_ms": 20,
}
Start = Callable[..., Triton]
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def vocabulary(engine: EngineDir) -> Vocabulary:
    return Vocabulary(engine.path / TOKENIZER)


@pytest.fixture(scope="session")
def alone(engine: EngineDir) -> Executor:
    """The same engine without Triton."""
    return Executor(engine, KvCacheConfig(max_tokens=CACHE, enable_block_reuse=False))


@pytest.fixture(scope="session")
def repository(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = describe(engine_dir=engine.path, **SETTINGS)
    return render(made, tmp_path_factory.mktemp("triton") / "repository")


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts a repository; the caller stops it."""
    home = str(tmp_path_factory.mktemp("home"))

    def begin(repository: Path) -> Triton:
        with pytest.MonkeyPatch.context() as patch:  # not for longer: the build cache is at home too
            patch.setenv("ENGINEROOM_HOME", home)
            return serve(repository, name=f"triton {repository.parent.name}")

    return begin


@pytest.fixture(scope="package")
def triton(start: Start, repository: Path) -> Iterator[Triton]:
    with start(repository) as running:
        yield running


@pytest.fixture(scope="package")
def front(triton: Triton, engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("sesame\nopen\n")
    options = {
        "api_key_file": keys,
        "request_timeout": 20,
        "max_requests": 200,
        "served_model_name": "course",
    }
    with serve_openai(triton, engine.path, **options) as server:
        yield server


@pytest.fixture
def client(front: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{front.url}/v1", api_key="sesame", max_retries=0)


def inputs(**arrays: Any) -> list[InferInput]:
    """Tensors of one sequence as a client of NVIDIA's backend writes them: a batch dimension before all."""
    kinds = {int: np.int32, float: np.float32, bool: bool, str: object, bytes: object}
    made = []
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray):
            first = value[0] if isinstance(value, list) else value
            value = np.array([value if isinstance(value, list) else [value]], kinds[type(first)])
        made.append(InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype)))
        made[-1].set_data_from_numpy(value)
    return made


def stream(triton: Triton, model: str, **arrays: Any) -> list[InferResult]:
    """All responses to one request over tritonclient's decoupled stream. Raises InferenceServerException."""
    answers: queue.Queue[tuple[InferResult, InferenceServerException | None]] = queue.Queue()
    with InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer(model, inputs(**arrays), enable_empty_final_response=True)
        found = []
        while True:
            result, error = answers.get(timeout=60)
            if error:
                raise error
            if result.get_response().outputs:
                found.append(result)
            if result.get_response().parameters["triton_final_response"].bool_param:
                return found


def steps(triton: Triton) -> int:
    """Turns of the engine's loop so far, when it has come to rest; each gives a token to every request that runs."""
    found = [engine_steps(triton)]
    while len(found) < 3 or found[-1] > found[-3]:
        time.sleep(0.2)  # the model tells its figures ten times in that: cancellation_check_period_ms
        found.append(engine_steps(triton))
    return found[-1]


def commands(triton: Triton) -> dict[psutil.Process, str]:
    """The processes of the server, but those that just end; the first two words of each, which name a model's file."""
    found = {}
    for process in psutil.Process(triton.server.pid).children(recursive=True):
        with suppress(psutil.Error):
            found[process] = " ".join(process.cmdline()[:2])
    return found


def shm_files(owner: int | None = None) -> set[str]:
    """In /dev/shm, of servers that this process started, or `owner` did."""
    return {file for file in keeper.shm_files() if f"engineroom{owner or os.getpid()}_" in file}
