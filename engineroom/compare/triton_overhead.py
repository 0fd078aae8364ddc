"""`engineroom compare triton-overhead`: what Triton and its OpenAI frontend cost, relative to the engine alone.

The same prompts go in turn to the engine in a process of its own (`AsyncExecutor`, called in that process), to Triton's
`tensorrt_llm` over gRPC streaming, and to Triton's OpenAI frontend. All clients share the machine with the servers. The
results are kept as records.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import typer

from engineroom.checkpoint import convert
from engineroom.compare.settings import CompareError
from engineroom.compare.workload import BatchWorkload
from engineroom.engine.build import build
from engineroom.engine.config import BuildConfig
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.network import async_http_client
from engineroom.kit.record import RecordRow, command_line, require_records_folder, save_records
from engineroom.load import random_prompts
from engineroom.load.sse import EventDecoder, read_events
from engineroom.triton.client import TritonBackend
from engineroom.triton.deployment import describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.render import render
from engineroom.triton.server import serve

ENGINE, TRITON, FRONTEND = "engine", "Triton, gRPC", "OpenAI frontend"
MODEL = "tensorrt_llm"
Prompts = list[list[int]]  # token ids
TokenStream = AsyncGenerator[object]  # one item for each token
Samples = dict[str, list[float]]  # by "<target>, <number of streams>", one sample for each round


class StreamTimings(NamedTuple):
    """Median seconds to the first token, and tokens per second of all streams together."""

    ttft: float
    rate: float


Target = Callable[[Prompts, int], Awaitable[StreamTimings]]  # prompts, tokens of each answer
_executors: list[AsyncExecutor] = []  # the one executor of the engine's own process


async def time_streams(
    generate: Callable[[list[int]], TokenStream], prompts: Prompts, output_len: int
) -> StreamTimings:
    """Send all prompts at once. Raises CompareError for an answer that is not `output_len` tokens long."""
    start = time.perf_counter()

    async def time_to_first_token(prompt: list[int]) -> float:
        ttft, num_tokens = 0.0, 0
        async with aclosing(generate(prompt)) as stream:
            async for _ in stream:
                ttft = ttft or time.perf_counter() - start
                num_tokens += 1
        if num_tokens != output_len:
            raise CompareError(f"an answer has {num_tokens} tokens, expected {output_len}.")
        return ttft

    ttfts = await asyncio.gather(*map(time_to_first_token, prompts))
    rate = len(prompts) * output_len / (time.perf_counter() - start)
    return StreamTimings(statistics.median(ttfts), rate)


def load_engine(engine_dir: Path, kv_cache_tokens: int) -> None:
    """The initializer of the engine's own process."""
    kv_cache = KvCacheConfig(max_tokens=kv_cache_tokens, enable_block_reuse=False)
    _executors.append(AsyncExecutor(Executor(engine_dir, kv_cache)))


def time_engine(prompts: Prompts, output_len: int) -> StreamTimings:
    """Runs in the engine's own process."""
    [executor], params = _executors, SamplingParams(max_tokens=output_len)
    return asyncio.run(time_streams(lambda prompt: executor.generate(prompt, params), prompts, output_len))


async def time_triton(backend: TritonBackend, prompts: Prompts, output_len: int) -> StreamTimings:
    params = SamplingParams(max_tokens=output_len)
    return await time_streams(lambda prompt: backend.generate(prompt, params), prompts, output_len)


async def time_frontend(http: httpx.AsyncClient, prompts: Prompts, output_len: int) -> StreamTimings:
    body = {"model": MODEL, "max_tokens": output_len, "temperature": 0, "stream": True, "ignore_eos": True}

    async def generate(prompt: list[int]) -> TokenStream:
        async with http.stream("POST", "/v1/completions", json=body | {"prompt": prompt}) as response:
            async for event in read_events(response.aiter_bytes(), EventDecoder()):
                if event.data.startswith(b"{"):  # the last event is [DONE]
                    yield event

    return await time_streams(generate, prompts, output_len)


async def measure_targets(
    targets: dict[str, Target], workloads: Sequence[BatchWorkload], rounds: int
) -> tuple[Samples, Samples]:
    """(seconds to the first token, tokens per second). Each round goes to all targets in turn; the first is warm-up."""
    ttfts, rates = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    for workload in workloads:
        label = f"{workload.streams} stream{'s' if workload.streams > 1 else ''}"
        for round_index in range(rounds + 1):
            prompts = random_prompts(workload.streams, workload.input_len, seed=round_index)
            for name, target in targets.items():
                timings = await target(prompts, workload.output_len)
                if round_index > 0:
                    ttfts[f"{name}, {label}"].append(timings.ttft)
                    rates[f"{name}, {label}"].append(timings.rate)
    return dict(ttfts), dict(rates)


def ratios(samples: Samples) -> Samples:
    """Every other target's samples, divided by the engine's in the same round with as many streams."""
    result: Samples = {}
    for name, target_samples in samples.items():
        target, _, streams = name.rpartition(", ")
        if target != ENGINE:
            engine_samples = samples[f"{ENGINE}, {streams}"]
            pairs = zip(target_samples, engine_samples, strict=True)
            result[name] = [target_sample / engine_sample for target_sample, engine_sample in pairs]
    return result


async def run(
    engine_dir: Path, folder: Path, workloads: Sequence[BatchWorkload], rounds: int
) -> tuple[Samples, Samples]:
    """Start the engine's process, Triton and the frontend, measure them, and stop them."""
    kv_cache_tokens = max(workload.kv_cache_tokens for workload in workloads)
    deployment = describe(
        engine_dir=engine_dir, max_tokens_in_paged_kv_cache=kv_cache_tokens, enable_kv_cache_reuse=False
    )
    repository = render(deployment, folder / "repository")
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, load_engine, (engine_dir, kv_cache_tokens)) as pool,
        serve(repository, name="triton overhead") as triton,
        serve_openai(triton, engine_dir, name="openai overhead", served_model_name=MODEL) as frontend,
    ):
        unlimited = httpx.Limits(max_connections=None)
        async with async_http_client(frontend.url, timeout=300, limits=unlimited) as http:
            targets: dict[str, Target] = {
                ENGINE: partial(asyncio.get_running_loop().run_in_executor, pool, time_engine),
                TRITON: partial(time_triton, TritonBackend(triton.grpc, triton.url, triton.metrics)),
                FRONTEND: partial(time_frontend, http),
            }
            return await measure_targets(targets, workloads, rounds)


def parse_streams(text: str) -> list[int]:
    """Read "1,8,32". Raises CompareError."""
    numbers = text.replace(" ", "").split(",")
    if not all(number.isdigit() and int(number) > 0 for number in numbers):
        raise CompareError(
            f"--streams {text!r}: expected numbers from 1 up, separated by commas, such as 1,8,32."
        )
    return [int(number) for number in numbers]


def triton_overhead(
    model: Annotated[Path, typer.Option(help="a Hugging Face folder")] = Path("models/course"),
    dtype: str = "bfloat16",
    streams: Annotated[
        str, typer.Option(help="requests at once; several numbers, separated by commas")
    ] = "1,8,32",
    input_len: int = 32,
    output_len: int = 64,
    rounds: int = 5,
    threads: Annotated[int, typer.Option(help="of each engine")] = 2,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Measure what Triton and its OpenAI frontend cost, print the result, and keep two records."""
    require_records_folder(out)
    workloads = [BatchWorkload(count, input_len, output_len) for count in parse_streams(streams)]
    os.environ["OMP_NUM_THREADS"] = str(threads)  # the processes of the engines inherit it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = BuildConfig(
            max_batch_size=max(workload.streams for workload in workloads),
            max_input_len=input_len,
            max_seq_len=input_len + output_len,
        )
        checkpoint = convert(model, folder / "checkpoint", dtype=dtype)
        engine = build(checkpoint, folder / "engine", config, tokenizer_dir=model)
        ttfts, rates = asyncio.run(run(engine.path, folder, workloads, rounds))
    command = command_line(
        "compare triton-overhead", model=model, dtype=dtype, streams=streams, input_len=input_len,
        output_len=output_len, rounds=rounds, threads=threads,
    )  # fmt: skip
    what = f"{model.name} in {dtype}, {input_len} tokens in, {output_len} out"
    rows: list[RecordRow] = [
        ("ttft", f"{what}: time to first token, median of the streams", "s", ttfts),
        ("rate", f"{what}: output tokens per second of all streams", "tokens/s", rates),
    ]
    for record in save_records("triton-overhead", rows, command, out):
        for name, values in ratios(record.values).items():
            print(f"  {name}: {statistics.median(values):.2f} × the engine")
