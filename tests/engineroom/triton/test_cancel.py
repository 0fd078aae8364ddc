"""When a client leaves, the engine stops working on its requests, whichever interface it used."""

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

from engineroom.engine.runtime.request import RequestError
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.network import http_get
from engineroom.kit.process import Server
from engineroom.metrics.prometheus import parse
from engineroom.triton.client import TritonBackend
from engineroom.triton.server import Triton
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.triton.conftest import infer_inputs, steps, stream
from tests.engineroom.triton.streams import PROMPTS, backend, generate, settled


async def leave_engine(triton: Triton, frontend: Server) -> None:
    async with aclosing(backend(triton).generate([300, 301], SamplingParams(max_tokens=230))) as stream:
        await anext(stream)


async def leave_bls(triton: Triton, frontend: Server, num_responses: int = 1) -> None:
    async def requests():
        tensors = infer_inputs(text_input="One two three", max_tokens=230, stream=True, end_id=-1)
        yield {"model_name": "tensorrt_llm_bls", "inputs": tensors}

    async with AsyncClient(triton.grpc) as client:
        responses: Any = client.stream_infer(requests())
        try:
            for _ in range(num_responses):
                await anext(responses)
        finally:
            responses.cancel()


async def leave_openai(triton: Triton, frontend: Server) -> None:
    address = {"base_url": f"{frontend.url}/v1", "api_key": "open", "max_retries": 0}
    body = {"prompt": [300, 301], "max_tokens": 230, "temperature": 0, "extra_body": {"ignore_eos": True}}
    async with openai.AsyncOpenAI(**address) as client:
        chunks = await client.completions.create(model="course", stream=True, **body)
        async with chunks:
            await anext(aiter(chunks))


def no_request_arrives(triton: Triton) -> bool:
    """Whether nobody sends the engine anything, in 25 times cancellation_check_period_ms."""
    before = num_requests(triton)
    time.sleep(0.5)
    return num_requests(triton) == before


def num_requests(triton: Triton) -> float:
    """Requests that the engine's model has answered, with an error or without."""
    page = http_get(triton.metrics, timeout=10).text
    names = ("nv_inference_request_success", "nv_inference_request_failure")
    return sum(sample.value for sample in parse(page, names) if sample.labels["model"] == "tensorrt_llm")


async def leave_bls_late(triton: Triton, frontend: Server) -> None:
    """The engine's error comes after other responses."""
    await leave_bls(triton, frontend, num_responses=3)


@pytest.mark.parametrize("leave", [leave_engine, leave_bls, leave_bls_late, leave_openai])
def test_clients_that_leave_end_the_engine_s_work(
    triton: Triton, frontend: Server, leave: Callable[[Triton, Server], Awaitable[None]]
) -> None:
    """60 requests of 230 tokens, four at a time in the KV cache: 3450 steps. All leave when the first has a token."""

    async def run_clients() -> None:
        tasks = [asyncio.create_task(leave(triton, frontend)) for _ in range(60)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    steps_before = steps(triton)
    asyncio.run(run_clients())
    assert settled(triton) == (0, 0, 0)
    assert eventually(
        lambda: no_request_arrives(triton)
    )  # a program that still waits sends `stop` in each period
    assert 1 <= steps(triton) - steps_before < 1000  # how many fewer depends on how soon the engine notices


def test_stop_by_request_id(triton: Triton) -> None:
    """NVIDIA's way to cancel: the same request id again, with `stop`. Some of the 60 requests run, most wait."""
    arrivals: list[tuple[object, Exception | None]] = []
    values = {"input_ids": [300, 301], "input_lengths": 2, "request_output_len": 250, "streaming": True}
    with InferenceServerClient(triton.grpc) as client:
        client.start_stream(lambda result, error: arrivals.append((result, error)))
        for index in range(60):
            client.async_stream_infer("tensorrt_llm", infer_inputs(**values), request_id=f"long {index}")
        client.async_stream_infer(
            "tensorrt_llm", infer_inputs(**values | {"request_output_len": 5}), request_id="short"
        )
        while not arrivals:
            time.sleep(0.01)
        for index in range(60):
            client.async_stream_infer(
                "tensorrt_llm", infer_inputs(**values, stop=True), request_id=f"long {index}"
            )
        assert settled(triton) == (0, 0, 0)
        client.stop_stream()
    errors = [str(error) for _, error in arrivals if error]
    assert 30 <= len(errors) <= 60 and all("cancelled" in error for error in errors)


def test_stop_needs_the_request_s_id(triton: Triton) -> None:
    with pytest.raises(InferenceServerException, match="give the request id"):
        stream(triton, "tensorrt_llm", input_ids=[0], input_lengths=0, request_output_len=0, stop=True)


@pytest.mark.parametrize("max_tokens", [3, 500])
def test_leaving_a_stream_as_it_ends_or_is_refused(triton: Triton, max_tokens: int) -> None:
    """With `triton_grpc_error` this ended Triton 2.51. Half of the clients stay to the end."""
    rng, params = random.Random(6), SamplingParams(max_tokens=max_tokens)

    async def run_client(triton_backend: TritonBackend, timeout: float | None) -> str:
        try:
            output = await generate(triton_backend, 0, params, timeout)
        except RequestError:
            return "refused"
        return output if isinstance(output, str) else "answered"

    async def run_clients() -> Counter[str]:
        triton_backend = backend(triton)
        timeouts = [rng.expovariate(1 / 0.4) if index % 2 else None for index in range(400)]
        return Counter(await asyncio.gather(*(run_client(triton_backend, timeout) for timeout in timeouts)))

    endings = asyncio.run(run_clients())
    assert set(endings) <= {"answered", "refused", "cancelled", "QueueFull"}
    assert endings["refused" if max_tokens == 500 else "answered"] >= 20 and endings["cancelled"] >= 1
    assert settled(triton) == (0, 0, 0)


def test_clients_of_openai_s_api_that_leave_take_their_requests_with_them(
    frontend: Server, triton: Triton
) -> None:
    """20 clients stay. 20 leave their streams after the first token, and at that moment 20 without a stream leave."""
    first_token = asyncio.Event()

    def complete(client: openai.AsyncOpenAI, max_tokens: int, stream: bool = False) -> Awaitable[Any]:
        body = {"prompt": PROMPTS[0], "max_tokens": max_tokens, "temperature": 0, "stream": stream}
        return client.completions.create(model="course", extra_body={"ignore_eos": True}, **body)

    async def stay(client: openai.AsyncOpenAI) -> str:
        return (await complete(client, 24)).choices[0].finish_reason

    async def leave_stream(client: openai.AsyncOpenAI) -> str:
        async with await complete(client, 200, stream=True) as chunks:
            await anext(aiter(chunks))
            first_token.set()
        return "left"

    async def leave_without_stream(client: openai.AsyncOpenAI) -> str:
        request = asyncio.create_task(complete(client, 200))
        await first_token.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        return "left"

    async def run_clients() -> Counter[str]:
        address = {"base_url": f"{frontend.url}/v1", "api_key": "open", "max_retries": 0}
        async with openai.AsyncOpenAI(**address) as client:
            behaviours = (leave_stream, leave_without_stream, stay)
            clients = [behave(client) for _ in range(20) for behave in behaviours]
            return Counter(await asyncio.gather(*clients))

    steps_before = steps(triton)
    assert asyncio.run(run_clients()) == {"length": 20, "left": 40}
    assert settled(triton) == (0, 0, 0)
    assert steps(triton) - steps_before < 1400  # of about 2000 for all answers
