"""Many streams, some cut off; a stub or a server that is killed: each answered or told, nothing stuck, nothing left."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

from labs import triton as lab
from labs.engine.directory import EngineDir
from labs.engine.runtime.async_executor import EngineStopped, QueueFull
from labs.engine.runtime.executor import Executor
from labs.engine.runtime.sampling import SamplingParams
from labs.engine.runtime.scheduler import RequestError
from labs.kit.process import Server
from labs.triton.client import TritonBackend
from labs.triton.front import serve_openai
from tests.triton.conftest import QUEUE, SETTINGS, Start, inputs, shm_files, steps, stream

STREAMS = 200
PROMPTS = [[300 + n, 301, 302] for n in range(5)]
LONG = SamplingParams(max_tokens=200)


def backend(triton: lab.Triton) -> TritonBackend:
    return TritonBackend(triton.grpc, triton.url, triton.metrics)


def settled(triton: lab.Triton) -> tuple[float, float, float]:
    """(running, waiting, share of blocks in use) when nobody runs any more, or after ten seconds."""
    for _ in range(100):
        load = backend(triton).load()
        if not load.running and not load.waiting:
            break
        time.sleep(0.1)
    return load.running, load.waiting, load.kv_cache_usage


async def ask(
    one: TritonBackend, number: int, params: SamplingParams, patience: float | None
) -> str | list[int]:
    """The tokens, or how it ended instead."""
    tokens: list[int] = []
    try:
        async with asyncio.timeout(patience):
            async for output in one.generate(PROMPTS[number % 5], params):
                tokens.append(output.token)
    except TimeoutError:
        return "cancelled"
    except (EngineStopped, QueueFull) as error:
        return type(error).__name__
    return tokens


def test_200_streams_with_random_cancels(triton: lab.Triton, alone: Executor) -> None:
    params, draw = SamplingParams(max_tokens=32), random.Random(3)
    right = alone.generate(PROMPTS, params)

    async def everybody() -> list[str | list[int]]:
        one = backend(triton)
        waits = [draw.choice([None, None, 0.01, 0.2, 1]) for _ in range(STREAMS)]
        return await asyncio.gather(*(ask(one, n, params, wait) for n, wait in enumerate(waits)))

    found = asyncio.run(everybody())
    assert {"cancelled"} == {one for one in found if isinstance(one, str)}
    assert all(one == right[n % 5] for n, one in enumerate(found) if isinstance(one, list))
    assert sum(isinstance(one, list) for one in found) > 50
    assert settled(triton) == (0, 0, 0)


@pytest.mark.parametrize("model", ["tensorrt_llm_bls", "ensemble"])
def test_text_streams_with_random_cancels(triton: lab.Triton, model: str) -> None:
    """The program tells the engine that its client has gone; in the ensemble the answer is computed to its end."""
    draw = random.Random(4)

    async def one(client: AsyncClient, number: int) -> str:
        more = {"return_num_output_tokens": True}

        async def asked():
            tensors = inputs(
                text_input=f"One two three {number}", max_tokens=32, stream=True, end_id=-1, **more
            )
            yield {"model_name": model, "inputs": tensors}

        answers, count = client.stream_infer(asked()), 0
        try:
            async with asyncio.timeout(draw.choice([None, None, 0.05, 0.5])):
                async for result, error in answers:
                    assert error is None
                    count = int(result.as_numpy("num_output_tokens").item())
        except TimeoutError:
            answers.cancel()
            return "cancelled"
        return f"{count} tokens"

    async def everybody() -> Counter[str]:
        async with AsyncClient(triton.grpc) as client:
            return Counter(await asyncio.gather(*(one(client, n) for n in range(60))))

    found = asyncio.run(everybody())
    assert set(found) == {"cancelled", "32 tokens"} and found["32 tokens"] >= 10
    assert settled(triton) == (0, 0, 0)


def test_more_than_the_queue_holds_is_refused_at_once(triton: lab.Triton) -> None:
    async def refused() -> int:
        one, count = backend(triton), 0
        tasks = [asyncio.create_task(ask(one, n, LONG, None)) for n in range(QUEUE + 100)]
        for done in asyncio.as_completed(tasks):
            count += await done == "QueueFull"
            if count == 10:
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return count

    assert asyncio.run(refused()) == 10
    assert settled(triton) == (0, 0, 0)


async def leave_engine(triton: lab.Triton, front: Server) -> None:
    async with aclosing(backend(triton).generate([300, 301], SamplingParams(max_tokens=230))) as stream:
        await anext(stream)


async def leave_program(triton: lab.Triton, front: Server) -> None:
    async def asked():
        tensors = inputs(text_input="One two three", max_tokens=230, stream=True, end_id=-1)
        yield {"model_name": "tensorrt_llm_bls", "inputs": tensors}

    async with AsyncClient(triton.grpc) as client:
        answers = client.stream_infer(asked())
        try:
            await anext(answers)
        finally:
            answers.cancel()


async def leave_openai(triton: lab.Triton, front: Server) -> None:
    address = {"base_url": f"{front.url}/v1", "api_key": "open", "max_retries": 0}
    body = {"prompt": [300, 301], "max_tokens": 230, "temperature": 0, "extra_body": {"ignore_eos": True}}
    async with openai.AsyncOpenAI(**address) as client:
        answer = await client.completions.create(model="course", stream=True, **body)
        async with answer:
            await anext(aiter(answer))


@pytest.mark.parametrize("leave", [leave_engine, leave_program, leave_openai])
def test_clients_that_leave_end_the_engine_s_work(
    triton: lab.Triton, front: Server, leave: Callable[[lab.Triton, Server], Awaitable[None]]
) -> None:
    """30 of 230 tokens, four at a time in the cache, 1725 steps; all go when the first has a token."""

    async def everybody() -> None:
        tasks = [asyncio.create_task(leave(triton, front)) for _ in range(30)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    before = steps(triton)
    asyncio.run(everybody())
    assert settled(triton) == (0, 0, 0)
    assert 1 <= steps(triton) - before < 1000


def test_stop_by_request_id(triton: lab.Triton) -> None:
    """NVIDIA's way to cancel: the same request id again, with `stop`."""
    answers: list[tuple[object, Exception | None]] = []
    ask = {"input_ids": [300, 301], "input_lengths": 2, "request_output_len": 250, "streaming": True}
    with InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        client.async_stream_infer("tensorrt_llm", inputs(**ask), request_id="one")
        client.async_stream_infer("tensorrt_llm", inputs(**ask | {"request_output_len": 5}), request_id="two")
        while not answers:
            time.sleep(0.01)
        client.async_stream_infer("tensorrt_llm", inputs(**ask, stop=True), request_id="one")
        assert settled(triton) == (0, 0, 0)
        client.stop_stream()
    errors = [str(error) for _, error in answers if error]
    assert len(errors) == 1 and "cancelled" in errors[0]


def test_stop_needs_the_request_s_id(triton: lab.Triton) -> None:
    with pytest.raises(InferenceServerException, match="give the request id"):
        stream(triton, "tensorrt_llm", input_ids=[0], input_lengths=0, request_output_len=0, stop=True)


@pytest.mark.parametrize("tokens", [3, 500])
def test_leaving_a_stream_as_it_ends_or_is_refused(triton: lab.Triton, tokens: int) -> None:
    """With `triton_grpc_error` Triton 2.51 died of it. Half of the clients stay to the end."""
    draw, params = random.Random(6), SamplingParams(max_tokens=tokens)

    async def one(to: TritonBackend, patience: float | None) -> str:
        try:
            found = await ask(to, 0, params, patience)
        except RequestError:
            return "refused"
        return found if isinstance(found, str) else "answered"

    async def everybody() -> Counter[str]:
        to = backend(triton)
        waits = [draw.expovariate(1 / 0.4) if n % 2 else None for n in range(400)]
        return Counter(await asyncio.gather(*(one(to, wait) for wait in waits)))

    found = asyncio.run(everybody())
    assert set(found) <= {"answered", "refused", "cancelled", "QueueFull"}
    assert found["refused" if tokens == 500 else "answered"] >= 20 and found["cancelled"] >= 1
    assert settled(triton) == (0, 0, 0)


def test_clients_of_openai_s_api_that_leave_take_their_requests_with_them(
    front: Server, triton: lab.Triton
) -> None:
    async def one(client: openai.AsyncOpenAI, stream: bool, patience: float | None) -> str:
        body = {"prompt": PROMPTS[0], "max_tokens": 24, "temperature": 0, "extra_body": {"ignore_eos": True}}
        try:
            async with asyncio.timeout(patience):
                answer = await client.completions.create(model="course", stream=stream, **body)
                if stream:
                    async for chunk in answer:
                        reason = chunk.choices[0].finish_reason
                    return str(reason)
                return answer.choices[0].finish_reason
        except TimeoutError:
            return "cancelled"

    async def everybody() -> Counter[str]:
        draw = random.Random(5)
        address = {"base_url": f"{front.url}/v1", "api_key": "open", "max_retries": 0}
        async with openai.AsyncOpenAI(**address) as client:
            waits = [draw.choice([None, 0.1, 0.4]) for _ in range(60)]
            return Counter(
                await asyncio.gather(*(one(client, n % 3 > 0, wait) for n, wait in enumerate(waits)))
            )

    found = asyncio.run(everybody())
    assert set(found) == {"length", "cancelled"} and min(found.values()) >= 10
    assert settled(triton) == (0, 0, 0)


def kill(name: str) -> Callable[[lab.Triton], None]:
    """SIGKILL to the process of the server's tree that has `name` in its first two words."""

    def act(triton: lab.Triton) -> None:
        tree = psutil.Process(triton.server.pid).children(recursive=True)
        [victim] = [process for process in tree if name in " ".join(process.cmdline()[:2])]
        victim.send_signal(signal.SIGKILL)

    return act


MURDER = kill("bin/tritonserver")


@pytest.mark.parametrize("act", [lab.Triton.stop, kill("tensorrt_llm/1/model.py"), MURDER])
def test_whatever_ends_the_server_every_client_is_told_and_nothing_is_left(
    engine: EngineDir, start: Start, tmp_path: Path, act: Callable[[lab.Triton], None]
) -> None:
    before = shm_files()
    repository = lab.render(lab.describe(engine_dir=engine.path, **SETTINGS), tmp_path / "repository")
    for name in ("preprocessing", "postprocessing", "ensemble", "tensorrt_llm_bls"):
        (repository / name).rename(tmp_path / name)  # a smaller repository starts sooner
    triton = start(repository)
    tree = psutil.Process(triton.server.pid).children(recursive=True)

    async def everybody() -> tuple[Counter[str], float]:
        one = backend(triton)
        tasks = [asyncio.create_task(ask(one, n, LONG, 60)) for n in range(STREAMS)]
        await asyncio.sleep(1)
        begin = time.monotonic()
        await asyncio.to_thread(act, triton)
        return Counter(map(str, await asyncio.gather(*tasks))), time.monotonic() - begin

    found, seconds = asyncio.run(everybody())
    assert found["EngineStopped"] >= 100 and "cancelled" not in found
    assert seconds < 5
    assert "Triton does not answer" in str(backend(triton).problem())
    triton.stop()
    assert not [
        process for process in tree if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    ]
    assert shm_files() <= before
    with pytest.raises(httpx.ConnectError):
        httpx.get(triton.url, trust_env=False)
    if act is not MURDER:
        return
    with start(repository) as again:
        assert asyncio.run(ask(backend(again), 0, SamplingParams(max_tokens=3), 10))


def test_a_front_door_that_is_killed_takes_its_requests_along_and_comes_back(
    triton: lab.Triton, engine: EngineDir
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
        while backend(triton).load().waiting < 10:
            await asyncio.sleep(0.05)
        psutil.Process(door.pid).kill()
        return await asyncio.wait_for(asyncio.gather(*tasks), 10)

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


def test_serve_from_a_terminal_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "postprocessing", tmp_path / "repository" / "postprocessing")
    line = [sys.executable, "-m", "labs.triton", "serve", str(tmp_path / "repository")]
    home = os.environ | {"ENGINEROOM_HOME": str(tmp_path / "home")}
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=home) as process:
        url = next(text.split()[1] for text in process.stdout if text.startswith("HTTP "))
        assert httpx.get(f"{url}/v2/models/postprocessing/ready", trust_env=False).status_code == 200
        tree = psutil.Process(process.pid).children(recursive=True)
        assert shm_files(process.pid)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0 and len(tree) > 2
    assert not [one for one in tree if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert not shm_files(process.pid)
