"""Requests of lesson 10 with the time of each response, and what Triton's own counters say."""

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
from google.protobuf import text_format
from tritonclient.grpc import InferInput, InferResult
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engineroom.metrics.prometheus import fetch
from engineroom.triton import client as triton_client
from engineroom.triton.deployment import Deployment
from engineroom.triton.render import CONFIG, TEMPLATES, parse_config
from engineroom.triton.server import Triton

DTYPES = {int: np.int32, float: np.float32, bool: np.bool_, str: np.object_}
TIMEOUT = 120  # seconds for one response; none in a lesson takes that long
# Variables that NVIDIA's copy of a file does not have; fill_template.py refuses a name that its file lacks.
ONLY_OURS = {
    "ensemble": {"prompt_embedding_table_data_type"},
    "tensorrt_llm_bls": {"cancellation_check_period_ms"},
}


@dataclass
class TritonResponse:
    """All responses to one request, seen from the client. Times are in seconds of time.perf_counter.

    `arrival_times` has a time for each response with tensors. `version` is that of the model that responded, "" when
    none did. `token_ids` are its `output_ids` and `text` is its `text_output`, as far as the model has these tensors.
    """

    start_time: float
    end_time: float = 0
    arrival_times: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    error: str = ""
    version: str = ""

    def add(self, result: InferResult) -> None:
        self.arrival_times.append(time.perf_counter())
        self.version = result.get_response().model_version
        output_ids, text_output = result.as_numpy("output_ids"), result.as_numpy("text_output")
        if output_ids is not None:
            self.token_ids += map(int, output_ids.flat)
        if text_output is not None:
            self.text += text_output[0].decode()


def infer_inputs(flat: bool = False, **values: Any) -> list[InferInput]:
    """Tensors of one sequence: [1, n], or [n] if `flat`. An int is INT32, a float FP32, a bool BOOL, a str BYTES."""
    arrays = {}
    for name, value in values.items():
        row = value if isinstance(value, list) else [value]
        arrays[name] = np.array(row if flat else [row], DTYPES[type(row[0])])
    return triton_client.infer_inputs(arrays)


def stream_infer(client: InferenceServerClient, model: str, **values: Any) -> Any:
    """Send one request over a gRPC stream. Returns an async iterator of (result, error) with a method `cancel()`."""

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": model, "inputs": infer_inputs(**values)}

    return client.stream_infer(requests(), stream_timeout=TIMEOUT)


async def infer(client: InferenceServerClient, model: str, **values: Any) -> TritonResponse:
    """Send one request over a gRPC stream and wait for its end. An error is recorded in the response, not raised."""
    response = TritonResponse(time.perf_counter())
    try:
        async for result, error in stream_infer(client, model, **values):
            if error:
                response.error = str(error)
            elif result.get_response().outputs:
                response.add(result)
    except (grpc.RpcError, InferenceServerException) as error:
        response.error = str(error)
    response.end_time = time.perf_counter()
    return response


async def run_under_load(
    action: Callable[[], Awaitable[object]],
    send_request: Callable[[], Awaitable[TritonResponse]],
    num_users: int = 4,
    num_requests: int = 2,
) -> tuple[list[TritonResponse], float, float]:
    """Run `action` while users send one request after the other: (their responses, its start time, its end time).

    Each user sends `num_requests` before the action, and as many after it. Raises what `action` raises.
    """
    responses, action_ended = list[TritonResponse](), asyncio.Event()

    async def send_some() -> None:
        for _ in range(num_requests):
            responses.append(await send_request())

    async def send_until_ended() -> None:
        while not action_ended.is_set():
            responses.append(await send_request())
        await send_some()

    await asyncio.gather(*(send_some() for _ in range(num_users)))
    users = [asyncio.create_task(send_until_ended()) for _ in range(num_users)]
    start_time = time.perf_counter()
    try:
        await action()
    finally:
        end_time = time.perf_counter()
        action_ended.set()
        await asyncio.gather(*users)
    return responses, start_time, end_time


def read_metrics(triton: Triton, prefix: str) -> dict[tuple[str, str], float]:
    """Triton's metrics whose names start with `prefix`, by (name, labels)."""
    values = {}
    for sample in fetch(triton.metrics):
        if sample.name.startswith(prefix):
            labels = ", ".join(f"{name} {value}" for name, value in sample.labels.items())
            values[sample.name, labels] = sample.value
    return values


def engine_steps(triton: Triton) -> int:
    """Steps of the engine since it was loaded; each step generates a token for every running request."""
    values = read_metrics(triton, "nv_trt_llm_general")
    return int(sum(value for (_, labels), value in values.items() if "iteration_counter" in labels))


async def wait_until_idle(triton: Triton) -> None:
    """Return when the engine has no request left. Raises TimeoutError when that takes longer than TIMEOUT.

    The engine publishes its gauges once in a period, so a single reading may be old: two must agree.
    """
    before = None
    async with asyncio.timeout(TIMEOUT):
        while True:
            gauges = read_metrics(triton, "nv_trt_llm_request")
            num_active = sum(
                value for (_, labels), value in gauges.items() if "request_type active" in labels
            )
            reading = num_active, engine_steps(triton)
            if reading == before and not num_active:
                return
            before = reading
            await asyncio.sleep(0.2)  # longer than a period


async def batch_sizes(client: InferenceServerClient, model: str) -> Counter[int]:
    """How many calls the model's program has had with each number of requests, since it was loaded."""
    statistics: Any = await client.get_inference_statistics(model)
    [model_statistics] = statistics.model_stats
    return Counter(
        {int(batch.batch_size): int(batch.compute_infer.count) for batch in model_statistics.batch_stats}
    )


async def new_batch_sizes(
    client: InferenceServerClient, model: str, before: Counter[int], num_requests: int
) -> Counter[int]:
    """What `num_requests` requests have added to `before`, the model's batch_sizes when they were sent.

    Triton counts a request after it has responded to it, so this waits until all of them are counted. Raises
    TimeoutError when some are still missing after `TIMEOUT` seconds.
    """
    async with asyncio.timeout(TIMEOUT):
        while True:
            sizes = await batch_sizes(client, model) - before
            if sum(size * calls for size, calls in sizes.items()) >= num_requests:
                return sizes
            await asyncio.sleep(0.01)


async def model_versions(client: InferenceServerClient, model: str) -> dict[str, str]:
    """Each version of a model that Triton knows, with its state: LOADING, READY, UNLOADING or UNAVAILABLE.

    A version that was unloaded stays in Triton's list, UNAVAILABLE.
    """
    index: Any = await client.get_model_repository_index()
    return {entry.version: entry.state for entry in index.models if entry.name == model and entry.version}


async def unload(client: InferenceServerClient, model: str) -> None:
    """Unload a model; returns when none of its versions is loaded. Raises TimeoutError after TIMEOUT seconds."""
    await client.unload_model(model, client_timeout=TIMEOUT)
    async with asyncio.timeout(TIMEOUT):
        while set((await model_versions(client, model)).values()) - {"UNAVAILABLE"}:
            await asyncio.sleep(0.1)


def with_instances(config: str, count: int) -> str:
    """The text of a config.pbtxt with `count` instances in its first instance group."""
    parsed = parse_config(config)
    parsed.instance_group[0].count = count
    return text_format.MessageToString(parsed)


async def num_instances(client: InferenceServerClient, model: str) -> int:
    """How many processes or threads of a model the server runs, by the configuration that it has loaded."""
    response: Any = await client.get_model_config(model)
    return sum(group.count * max(1, len(group.gpus)) for group in response.config.instance_group)


def fill_template_commands(deployment: Deployment, repository: str, models: Sequence[str]) -> list[str]:
    """The command of NVIDIA's fill_template.py for each model's config.pbtxt in a copy of NVIDIA's repository."""
    commands, values = [], deployment.variables()
    for model in models:
        template = (TEMPLATES / deployment.template / model / CONFIG).read_text()
        names = dict.fromkeys(re.findall(r"\$\{(\w+)\}", template))  # each once, in the order of the file
        settings = [f"{name}:{values[name]}" for name in names if name not in ONLY_OURS.get(model, ())]
        commands.append(f"fill_template.py -i {repository}/{model}/{CONFIG} \\\n    {','.join(settings)}")
    return commands
