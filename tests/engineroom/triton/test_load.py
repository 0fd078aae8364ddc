"""Many streams, some cancelled, some beyond the queue: each ends with an answer or an error, and none hangs."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient

from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import MAX_QUEUE_SIZE, infer_inputs
from tests.engineroom.triton.streams import LONG, NUM_STREAMS, PROMPTS, backend, generate, settled


def test_200_streams_with_random_cancels(triton: Triton, executor: Executor) -> None:
    params, rng = SamplingParams(max_tokens=32), random.Random(3)
    expected = executor.generate(PROMPTS, params)

    async def run_clients() -> list[str | list[int]]:
        triton_backend = backend(triton)
        timeouts = [rng.choice([None, None, 0.01, 0.2, 1]) for _ in range(NUM_STREAMS)]
        return await asyncio.gather(
            *(generate(triton_backend, index, params, timeout) for index, timeout in enumerate(timeouts))
        )

    outputs = asyncio.run(run_clients())
    complete_outputs = {index: output for index, output in enumerate(outputs) if isinstance(output, list)}
    assert {output for output in outputs if isinstance(output, str)} == {"cancelled"}
    assert all(output == expected[index % len(PROMPTS)] for index, output in complete_outputs.items())
    assert len(complete_outputs) > 50
    assert settled(triton) == (0, 0, 0)


@pytest.mark.parametrize("model", ["tensorrt_llm_bls", "ensemble"])
def test_text_streams_with_random_cancels(triton: Triton, model: str) -> None:
    """The BLS program stops the engine when its client has left; behind the ensemble, the engine runs to the end."""
    rng = random.Random(4)

    async def run_client(client: AsyncClient, index: int) -> str:
        async def requests():
            prompt = f"One two three {index}"
            inputs = infer_inputs(
                text_input=prompt, max_tokens=32, stream=True, end_id=-1, return_num_output_tokens=True
            )
            yield {"model_name": model, "inputs": inputs}

        responses: Any = client.stream_infer(requests())
        num_tokens = 0
        try:
            async with asyncio.timeout(rng.choice([None, None, 0.01, 0.5])):
                async for result, error in responses:
                    assert error is None
                    num_tokens = int(result.as_numpy("num_output_tokens").item())
        except TimeoutError:
            responses.cancel()
            return "cancelled"
        return f"{num_tokens} tokens"

    async def run_clients() -> Counter[str]:
        async with AsyncClient(triton.grpc) as client:
            return Counter(await asyncio.gather(*(run_client(client, index) for index in range(60))))

    endings = asyncio.run(run_clients())
    assert set(endings) == {"cancelled", "32 tokens"} and endings["32 tokens"] >= 10
    assert settled(triton) == (0, 0, 0)


def test_more_than_the_queue_holds_is_refused_at_once(triton: Triton) -> None:
    async def count_refusals() -> int:
        triton_backend, num_refused = backend(triton), 0
        tasks = [
            asyncio.create_task(generate(triton_backend, index, LONG, None))
            for index in range(MAX_QUEUE_SIZE + 100)
        ]
        for output in asyncio.as_completed(tasks):
            if await output == "QueueFull":
                num_refused += 1
            if num_refused == 10:
                break
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return num_refused

    assert asyncio.run(count_refusals()) == 10
    assert settled(triton) == (0, 0, 0)
