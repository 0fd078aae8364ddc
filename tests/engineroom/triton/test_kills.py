"""A stub, a server or a front door that is killed under load: every client is told, nothing is left."""

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
from tests.engineroom.triton.conftest import SETTINGS, Start, commands, shm_files, steps
from tests.engineroom.triton.streams import LONG, STREAMS, ask, backend, settled


def kill(name: str) -> Callable[[Triton], None]:
    """SIGKILL to the process of the server's tree that has `name` in its first two words."""

    def act(triton: Triton) -> None:
        [victim] = [one for one, command in commands(triton).items() if name in command]
        victim.send_signal(signal.SIGKILL)

    return act


MURDER = kill("bin/tritonserver")


@pytest.mark.parametrize("act", [Triton.stop, kill("tensorrt_llm/1/model.py"), MURDER])
def test_whatever_ends_the_server_every_client_is_told_and_nothing_is_left(
    engine: EngineDir, start: Start, tmp_path: Path, act: Callable[[Triton], None]
) -> None:
    before = shm_files()
    repository = render(describe(engine_dir=engine.path, **SETTINGS), tmp_path / "repository")
    for name in ("preprocessing", "postprocessing", "ensemble", "tensorrt_llm_bls"):
        (repository / name).rename(tmp_path / name)  # a smaller repository starts sooner
    triton = start(repository)
    tree = psutil.Process(triton.server.pid).children(recursive=True)

    async def everybody() -> Counter[str]:
        one = backend(triton)
        tasks = [asyncio.create_task(ask(one, n, LONG, 60)) for n in range(STREAMS)]
        while (await asyncio.to_thread(one.load)).waiting < STREAMS * 3 / 4:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(act, triton)
        return Counter(map(str, await asyncio.gather(*tasks)))

    found = asyncio.run(everybody())
    assert found["EngineStopped"] >= 100 and "cancelled" not in found
    assert "Triton does not answer" in str(backend(triton).problem())
    triton.stop()
    assert not any(alive(one.pid) for one in tree)
    assert shm_files() <= before
    with pytest.raises(httpx.ConnectError):
        httpx.get(triton.url, trust_env=False)
    if act is not MURDER:
        return
    with start(repository) as again:
        assert asyncio.run(ask(backend(again), 0, SamplingParams(max_tokens=3), 60))


def test_a_front_door_that_is_killed_takes_its_requests_along_and_comes_back(
    triton: Triton, engine: EngineDir
) -> None:
    before, number = shm_files(), steps(triton)
    body = {
        "model": "tensorrt_llm",
        "prompt": [300, 301],
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }

    async def ask(door: Server, stream: bool) -> str:
        async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0) as client:
            try:
                answer = await client.completions.create(max_tokens=230, stream=stream, **body)
                return str([chunk.choices[0].text async for chunk in answer] if stream else answer)
            except (openai.APIConnectionError, httpx.RemoteProtocolError, httpx.ReadError):
                return "told"

    async def everybody(door: Server) -> list[str]:
        tasks = [asyncio.create_task(ask(door, n % 2 > 0)) for n in range(30)]
        while (await asyncio.to_thread(backend(triton).load)).waiting < 10:
            await asyncio.sleep(0.05)
        psutil.Process(door.pid).kill()
        return await asyncio.wait_for(asyncio.gather(*tasks), 60)

    door = serve_openai(triton, engine.path, name="openai killed")
    found = asyncio.run(everybody(door))
    assert found.count("told") >= 20
    assert settled(triton) == (0, 0, 0) and steps(triton) - number < 1500  # of 1725 for all answers
    assert not door.alive()
    with serve_openai(triton, engine.path, name="openai killed") as again:
        client = openai.OpenAI(base_url=f"{again.url}/v1", api_key="none", max_retries=0)
        assert client.completions.create(max_tokens=5, **body).choices[0].finish_reason == "length"
        with pytest.raises(httpx.ConnectError):
            httpx.get(door.url, trust_env=False)
    assert shm_files() <= before


@pytest.mark.parametrize(
    ("handler", "number"),
    [(signal.SIG_DFL, signal.SIGINT), (signal.SIG_DFL, signal.SIGTERM), (signal.SIG_IGN, signal.SIGTERM)],
)
def test_serve_from_a_terminal_leaves_nothing(
    repository: Path, tmp_path: Path, handler: signal.Handlers, number: signal.Signals
) -> None:
    """SIGINT is ignored in a job that a script sent to the background."""
    shutil.copytree(repository / "postprocessing", tmp_path / "repository" / "postprocessing")
    line = [sys.executable, "-m", "engineroom.triton", "serve", str(tmp_path / "repository")]
    home = os.environ | {"ENGINEROOM_HOME": str(tmp_path / "home")}
    with subprocess.Popen(
        with_sigint(handler, line), stdout=subprocess.PIPE, text=True, env=home
    ) as terminal:
        try:
            url = next(text.split()[1] for text in terminal.stdout if text.startswith("HTTP "))
            assert httpx.get(f"{url}/v2/models/postprocessing/ready", trust_env=False).status_code == 200
            tree = psutil.Process(terminal.pid).children(recursive=True)
            assert shm_files(terminal.pid)
            terminal.send_signal(number)
            assert terminal.wait(60) == 0 and len(tree) > 2
        finally:
            terminal.kill()
    assert not any(alive(one.pid) for one in tree)
    assert not shm_files(terminal.pid)


def test_the_front_door_ends_by_sigterm_where_sigint_is_ignored(triton: Triton, engine: EngineDir) -> None:
    line = [sys.executable, "-m", "engineroom.triton", "openai", str(engine.path), "--port", "{port}"]
    line += ["--grpc", triton.grpc, "--url", triton.url, "--metrics", triton.metrics]
    with process.start(with_sigint(signal.SIG_IGN, line), name="deaf door") as door:
        os.kill(door.pid, signal.SIGTERM)
        assert eventually(lambda: not door.alive())
