"""Many streams, some cut off, and more than the queue holds: each answered or told, nothing stuck."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient

from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import QUEUE, inputs
from tests.engineroom.triton.streams import LONG, PROMPTS, STREAMS, ask, backend, settled


def test_200_streams_with_random_cancels(triton: Triton, alone: Executor) -> None:
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
def test_text_streams_with_random_cancels(triton: Triton, model: str) -> None:
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
            async with asyncio.timeout(draw.choice([None, None, 0.01, 0.5])):
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


def test_more_than_the_queue_holds_is_refused_at_once(triton: Triton) -> None:
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
