"""Small things of lesson 10: a request and its answers on a clock, and what Triton's own counters say."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from engineroom.metrics.prometheus import fetch
from engineroom.triton.deployment import Deployment
from engineroom.triton.render import CONFIG, TEMPLATES
from engineroom.triton.server import Triton

KINDS = {int: np.int32, float: np.float32, bool: np.bool_, str: np.object_}
PATIENCE = 120  # seconds; no answer in a lesson takes as long
# what NVIDIA's copy of a file does not have; fill_template.py refuses a name that its file lacks
ONLY_OURS = {
    "ensemble": {"prompt_embedding_table_data_type"},
    "tensorrt_llm_bls": {"cancellation_check_period_ms"},
}


@dataclass
class Answer:
    """One request seen from the client: seconds on time.perf_counter, a time for each response with tensors.

    `version` is that of the model which answered, "" when none did; `tokens` are its output_ids, `text` its
    text_output, as far as the model has them.
    """

    sent: float
    done: float = 0
    arrivals: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    error: str = ""
    version: str = ""

    def add(self, result: InferResult) -> None:
        self.arrivals.append(time.perf_counter())
        self.version = result.get_response().model_version
        if (ids := result.as_numpy("output_ids")) is not None:
            self.tokens += map(int, ids.flat)
        if (text := result.as_numpy("text_output")) is not None:
            self.text += text[0].decode()


def inputs(flat: bool = False, **values: Any) -> list[InferInput]:
    """Tensors of one sequence, [1, n] each, [n] if `flat`: int is INT32, float FP32, bool BOOL, str BYTES."""
    made = []
    for name, value in values.items():
        row = value if isinstance(value, list) else [value]
        array = np.array(row if flat else [row], KINDS[type(row[0])])
        made.append(InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype)))
        made[-1].set_data_from_numpy(array)
    return made


def stream(client: InferenceServerClient, model: str, **values: Any) -> Any:
    """Send one request over a gRPC stream: an async iterator of (result, error), with `cancel()`."""

    async def once() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": model, "inputs": inputs(**values)}

    return client.stream_infer(once(), stream_timeout=PATIENCE)


async def ask(client: InferenceServerClient, model: str, **values: Any) -> Answer:
    """The whole answer to one streamed request; an error is noted in it, not raised."""
    answer = Answer(time.perf_counter())
    try:
        async for result, error in stream(client, model, **values):
            if error:
                answer.error = str(error)
            elif result.get_response().outputs:
                answer.add(result)
    except (grpc.RpcError, InferenceServerException) as error:
        answer.error = str(error)
    answer.done = time.perf_counter()
    return answer


async def under_load(
    act: Callable[[], Awaitable[object]], one: Callable[[], Awaitable[Answer]], users: int = 4, after: int = 2
) -> tuple[list[Answer], float, float]:
    """Run `act` while so many users ask one request after the other: their answers, and when `act` began and ended.

    Each user begins with `after` requests before `act`, and asks as many after it. Raises what `act` raises.
    """
    answers, done = list[Answer](), asyncio.Event()

    async def some() -> None:
        for _ in range(after):
            answers.append(await one())

    async def until_done() -> None:
        while not done.is_set():
            answers.append(await one())
        await some()

    await asyncio.gather(*(some() for _ in range(users)))
    busy = [asyncio.create_task(until_done()) for _ in range(users)]
    began = time.perf_counter()
    try:
        await act()
    finally:
        ended = time.perf_counter()
        done.set()
        await asyncio.gather(*busy)
    return answers, began, ended


def gauges(triton: Triton, prefix: str) -> dict[tuple[str, str], float]:
    """Triton's metrics that begin so, by (name, labels); see its address `metrics`."""
    values = {}
    for sample in fetch(triton.metrics):
        if sample.name.startswith(prefix):
            labels = ", ".join(f"{name} {value}" for name, value in sample.labels.items())
            values[sample.name, labels] = sample.value
    return values


def engine_steps(triton: Triton) -> int:
    """Turns of the engine's loop since it was loaded; one gives a token to every request that runs."""
    found = gauges(triton, "nv_trt_llm_general")
    return int(sum(value for (_, labels), value in found.items() if "iteration_counter" in labels))


async def batch_sizes(client: InferenceServerClient, model: str) -> Counter[int]:
    """How often the model's program was called with so many requests at once, since it was loaded."""
    [found] = (await client.get_inference_statistics(model)).model_stats
    return Counter({int(one.batch_size): int(one.compute_infer.count) for one in found.batch_stats})


async def versions(client: InferenceServerClient, model: str) -> dict[str, str]:
    """Each version of a model that Triton has now, with its state."""
    index = await client.get_model_repository_index()
    return {one.version: one.state for one in index.models if one.name == model and one.version}


def fill_template(deployment: Deployment, repository: str, models: Sequence[str]) -> list[str]:
    """A line of NVIDIA's fill_template.py for each model's config.pbtxt, for a copy of its repository."""
    lines, values = [], deployment.variables()
    for model in models:
        text = (TEMPLATES / deployment.template / model / CONFIG).read_text()
        names = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text))
        pairs = [f"{name}:{values[name]}" for name in names if name not in ONLY_OURS.get(model, ())]
        lines.append(f"fill_template.py -i {repository}/{model}/{CONFIG} \\\n    {','.join(pairs)}")
    return lines
