"""Clients that leave, by any of the ways in: the engine's work for them ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import openai
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.kit.process import Server
from engineroom.triton.client import TritonBackend
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import inputs, steps, stream
from tests.engineroom.triton.streams import PROMPTS, ask, backend, settled


async def leave_engine(triton: Triton, front: Server) -> None:
    async with aclosing(backend(triton).generate([300, 301], SamplingParams(max_tokens=230))) as stream:
        await anext(stream)


async def leave_program(triton: Triton, front: Server) -> None:
    async def asked():
        tensors = inputs(text_input="One two three", max_tokens=230, stream=True, end_id=-1)
        yield {"model_name": "tensorrt_llm_bls", "inputs": tensors}

    async with AsyncClient(triton.grpc) as client:
        answers = client.stream_infer(asked())
        try:
            await anext(answers)
        finally:
            answers.cancel()


async def leave_openai(triton: Triton, front: Server) -> None:
    address = {"base_url": f"{front.url}/v1", "api_key": "open", "max_retries": 0}
    body = {"prompt": [300, 301], "max_tokens": 230, "temperature": 0, "extra_body": {"ignore_eos": True}}
    async with openai.AsyncOpenAI(**address) as client:
        answer = await client.completions.create(model="course", stream=True, **body)
        async with answer:
            await anext(aiter(answer))


@pytest.mark.parametrize("leave", [leave_engine, leave_program, leave_openai])
def test_clients_that_leave_end_the_engine_s_work(
    triton: Triton, front: Server, leave: Callable[[Triton, Server], Awaitable[None]]
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
    assert 1 <= steps(triton) - before < 1550  # how many less depends on how soon the engine is told


def test_stop_by_request_id(triton: Triton) -> None:
    """NVIDIA's way to cancel: the same request id again, with `stop`. Some of the 60 run, most wait."""
    answers: list[tuple[object, Exception | None]] = []
    ask = {"input_ids": [300, 301], "input_lengths": 2, "request_output_len": 250, "streaming": True}
    with InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for number in range(60):
            client.async_stream_infer("tensorrt_llm", inputs(**ask), request_id=f"long {number}")
        client.async_stream_infer(
            "tensorrt_llm", inputs(**ask | {"request_output_len": 5}), request_id="short"
        )
        while not answers:
            time.sleep(0.01)
        for number in range(60):
            client.async_stream_infer("tensorrt_llm", inputs(**ask, stop=True), request_id=f"long {number}")
        assert settled(triton) == (0, 0, 0)
        client.stop_stream()
    errors = [str(error) for _, error in answers if error]
    assert 30 <= len(errors) <= 60 and all("cancelled" in error for error in errors)


def test_stop_needs_the_request_s_id(triton: Triton) -> None:
    with pytest.raises(InferenceServerException, match="give the request id"):
        stream(triton, "tensorrt_llm", input_ids=[0], input_lengths=0, request_output_len=0, stop=True)


@pytest.mark.parametrize("tokens", [3, 500])
def test_leaving_a_stream_as_it_ends_or_is_refused(triton: Triton, tokens: int) -> None:
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
    front: Server, triton: Triton
) -> None:
    """20 stay; of the others 20 leave their streams after the first token, and 20 without a stream at that moment."""
    first = asyncio.Event()

    def asked(client: openai.AsyncOpenAI, tokens: int, stream: bool = False) -> Awaitable[Any]:
        body = {"prompt": PROMPTS[0], "max_tokens": tokens, "temperature": 0, "stream": stream}
        return client.completions.create(model="course", extra_body={"ignore_eos": True}, **body)

    async def stay(client: openai.AsyncOpenAI) -> str:
        return (await asked(client, 24)).choices[0].finish_reason

    async def leave_stream(client: openai.AsyncOpenAI) -> str:
        async with await asked(client, 200, stream=True) as answer:
            await anext(aiter(answer))
            first.set()
        return "left"

    async def leave_without_stream(client: openai.AsyncOpenAI) -> str:
        asking = asyncio.create_task(asked(client, 200))
        await first.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return "left"

    async def everybody() -> Counter[str]:
        address = {"base_url": f"{front.url}/v1", "api_key": "open", "max_retries": 0}
        async with openai.AsyncOpenAI(**address) as client:
            clients = [act(client) for _ in range(20) for act in (leave_stream, leave_without_stream, stay)]
            return Counter(await asyncio.gather(*clients))

    before = steps(triton)
    assert asyncio.run(everybody()) == {"length": 20, "left": 40}
    assert settled(triton) == (0, 0, 0)
    assert steps(triton) - before < 1400  # of about 2000 for all answers
