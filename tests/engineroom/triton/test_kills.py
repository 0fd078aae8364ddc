"""A stub, a server or an OpenAI frontend is killed under load: every client gets an error, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit import process
from engineroom.kit.process import Server
from engineroom.triton.deployment import describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.render import render
from engineroom.triton.server import Triton
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import alive, eventually
from tests.engineroom.triton.conftest import SETTINGS, StartTriton, commands, shm_files, steps
from tests.engineroom.triton.streams import LONG, NUM_STREAMS, backend, generate, settled


def kill(name: str) -> Callable[[Triton], None]:
    """Returns a function that sends SIGKILL to the server's process that has `name` in its first two words."""

    def kill_process(triton: Triton) -> None:
        [process] = [process for process, command in commands(triton).items() if name in command]
        process.send_signal(signal.SIGKILL)

    return kill_process


KILL_SERVER = kill("bin/tritonserver")


@pytest.mark.parametrize("end", [Triton.stop, kill("tensorrt_llm/1/model.py"), KILL_SERVER])
def test_whatever_ends_the_server_every_client_gets_an_error_and_nothing_is_left(
    engine: EngineDir, start_triton: StartTriton, tmp_path: Path, end: Callable[[Triton], None]
) -> None:
    shm_before = shm_files()
    repository = render(describe(engine_dir=engine.path, **SETTINGS), tmp_path / "repository")
    for name in ("preprocessing", "postprocessing", "ensemble", "tensorrt_llm_bls"):
        (repository / name).rename(tmp_path / name)  # a smaller repository starts sooner
    triton = start_triton(repository)
    processes = psutil.Process(triton.server.pid).children(recursive=True)

    async def run_clients() -> Counter[str]:
        triton_backend = backend(triton)
        tasks = [
            asyncio.create_task(generate(triton_backend, index, LONG, 60)) for index in range(NUM_STREAMS)
        ]
        while (await asyncio.to_thread(triton_backend.stats)).num_waiting_requests < NUM_STREAMS * 3 / 4:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(end, triton)
        return Counter(map(str, await asyncio.gather(*tasks)))

    endings = asyncio.run(run_clients())
    assert endings["EngineStopped"] >= 100 and "cancelled" not in endings
    assert "Triton does not answer" in str(backend(triton).problem())
    triton.stop()
    assert not any(alive(process.pid) for process in processes)
    assert shm_files() <= shm_before
    with pytest.raises(httpx.ConnectError):
        httpx.get(triton.url, trust_env=False)
    if end is not KILL_SERVER:
        return
    with start_triton(repository) as restarted:
        assert asyncio.run(generate(backend(restarted), 0, SamplingParams(max_tokens=3), 60))


def test_a_frontend_that_is_killed_takes_its_requests_along_and_can_be_started_again(
    triton: Triton, engine: EngineDir
) -> None:
    shm_before, steps_before = shm_files(), steps(triton)
    body = {
        "model": "tensorrt_llm",
        "prompt": [300, 301],
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }

    async def complete(frontend: Server, stream: bool) -> str:
        base_url = f"{frontend.url}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            try:
                completion: Any = await client.completions.create(max_tokens=230, stream=stream, **body)
                return str([chunk.choices[0].text async for chunk in completion] if stream else completion)
            except (openai.APIConnectionError, httpx.RemoteProtocolError, httpx.ReadError):
                return "connection lost"

    async def run_clients(frontend: Server) -> list[str]:
        tasks = [asyncio.create_task(complete(frontend, index % 2 > 0)) for index in range(30)]
        while (await asyncio.to_thread(backend(triton).stats)).num_waiting_requests < 10:
            await asyncio.sleep(0.05)
        psutil.Process(frontend.pid).kill()
        return await asyncio.wait_for(asyncio.gather(*tasks), 60)

    frontend = serve_openai(triton, engine.path, name="openai killed")
    endings = asyncio.run(run_clients(frontend))
    assert endings.count("connection lost") >= 20
    assert settled(triton) == (0, 0, 0) and steps(triton) - steps_before < 1500  # of 1725 for all answers
    assert not frontend.alive()
    with serve_openai(triton, engine.path, name="openai killed") as restarted:
        client = openai.OpenAI(base_url=f"{restarted.url}/v1", api_key="none", max_retries=0)
        assert client.completions.create(max_tokens=5, **body).choices[0].finish_reason == "length"
        with pytest.raises(httpx.ConnectError):
            httpx.get(frontend.url, trust_env=False)
    assert shm_files() <= shm_before


@pytest.mark.parametrize(
    ("sigint_handler", "signal_number"),
    [(signal.SIG_DFL, signal.SIGINT), (signal.SIG_DFL, signal.SIGTERM), (signal.SIG_IGN, signal.SIGTERM)],
)
def test_serve_from_a_terminal_leaves_nothing(
    repository: Path, tmp_path: Path, sigint_handler: signal.Handlers, signal_number: signal.Signals
) -> None:
    """A job that a script starts in the background ignores SIGINT."""
    shutil.copytree(repository / "postprocessing", tmp_path / "repository" / "postprocessing")
    command = [sys.executable, "-m", "engineroom.triton", "serve", str(tmp_path / "repository")]
    environment = os.environ | {"ENGINEROOM_HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        with_sigint(sigint_handler, command), stdout=subprocess.PIPE, text=True, env=environment
    ) as terminal:
        try:
            url = next(line.split()[1] for line in terminal.stdout if line.startswith("HTTP "))
            assert httpx.get(f"{url}/v2/models/postprocessing/ready", trust_env=False).status_code == 200
            processes = psutil.Process(terminal.pid).children(recursive=True)
            assert shm_files(terminal.pid)
            terminal.send_signal(signal_number)
            assert terminal.wait(60) == 128 + signal_number and len(processes) > 2
        finally:
            terminal.kill()
    assert not any(alive(process.pid) for process in processes)
    assert not shm_files(terminal.pid)


def test_the_frontend_ends_by_sigterm_where_sigint_is_ignored(triton: Triton, engine: EngineDir) -> None:
    command = [sys.executable, "-m", "engineroom.triton", "openai", str(engine.path), "--port", "{port}"]
    command += ["--grpc", triton.grpc, "--url", triton.url, "--metrics", triton.metrics]
    with process.start(with_sigint(signal.SIG_IGN, command), name="frontend without SIGINT") as frontend:
        os.kill(frontend.pid, signal.SIGTERM)
        assert eventually(lambda: not frontend.alive())
