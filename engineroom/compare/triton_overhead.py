"""`engineroom compare triton-overhead`: what Triton and the front door cost, beside the engine alone, kept as records.

The same prompts go in turn to the engine in a process of its own (`AsyncExecutor`, asked from within), to Triton's
`tensorrt_llm` over gRPC streaming, and to OpenAI's API before Triton. All clients share the machine with the servers.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Annotated

import httpx
import typer

from engineroom.checkpoint import convert
from engineroom.engine.build import build
from engineroom.engine.config import BuildConfig
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.record import command_line, keep
from engineroom.triton.client import TritonBackend
from engineroom.triton.deployment import describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.render import render
from engineroom.triton.server import serve

ENGINE, TRITON, OPENAI = "engine", "Triton, gRPC", "OpenAI front door"
Prompts = list[list[int]]
Samples = dict[str, list[float]]
Tokens = AsyncGenerator[object]  # an item a token
Timed = tuple[float, float]  # median seconds to the first token, tokens per second of all streams together
_alone: list[AsyncExecutor] = []  # in the engine's own process


async def timed(ask: Callable[[list[int]], Tokens], prompts: Prompts, output_len: int) -> Timed:
    """All prompts at once. Raises RuntimeError for an answer that is not `output_len` tokens long."""
    began = time.perf_counter()

    async def one(prompt: list[int]) -> float:
        first, count = 0.0, 0
        async with aclosing(ask(prompt)) as tokens:
            async for _ in tokens:
                first, count = first or time.perf_counter() - began, count + 1
        if count != output_len:
            raise RuntimeError(f"an answer has {count} tokens, asked were {output_len}.")
        return first

    firsts = await asyncio.gather(*map(one, prompts))
    return statistics.median(firsts), len(prompts) * output_len / (time.perf_counter() - began)


def load(engine_dir: Path, kv_tokens: int) -> None:
    kv = KvCacheConfig(max_tokens=kv_tokens, enable_block_reuse=False)
    _alone.append(AsyncExecutor(Executor(engine_dir, kv)))


def alone(prompts: Prompts, output_len: int) -> Timed:
    params = SamplingParams(max_tokens=output_len)
    return asyncio.run(timed(lambda prompt: _alone[0].generate(prompt, params), prompts, output_len))


async def through_triton(backend: TritonBackend, prompts: Prompts, output_len: int) -> Timed:
    params = SamplingParams(max_tokens=output_len)
    return await timed(lambda prompt: backend.generate(prompt, params), prompts, output_len)


async def through_openai(client: httpx.AsyncClient, prompts: Prompts, output_len: int) -> Timed:
    body = {
        "model": "tensorrt_llm",
        "max_tokens": output_len,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }

    async def ask(prompt: list[int]) -> Tokens:
        async with client.stream("POST", "/v1/completions", json=body | {"prompt": prompt}) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    yield line

    return await timed(ask, prompts, output_len)


async def measure(
    ways: dict[str, Callable[[Prompts, int], Awaitable[Timed]]],
    streams: list[int], lengths: tuple[int, int], rounds: int,
) -> tuple[Samples, Samples]:  # fmt: skip
    """(seconds to the first token, tokens per second), a sample a round; one round before is not counted."""
    firsts, rates = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    draw = random.Random(0)
    for count in streams:
        for number in range(rounds + 1):
            prompts = [[draw.randrange(300, 4000) for _ in range(lengths[0])] for _ in range(count)]
            for way, run in ways.items():
                first, rate = await run(prompts, lengths[1])
                if number:
                    name = f"{way}, {count} stream{'s'[: count > 1]}"
                    firsts[name].append(first)
                    rates[name].append(rate)
    return dict(firsts), dict(rates)


def ratios(samples: Samples) -> Samples:
    """Each way's samples over the engine's of the same round."""
    pairs = [
        (name, f"{ENGINE}, {name.rpartition(', ')[2]}") for name in samples if not name.startswith(ENGINE)
    ]
    return {name: [a / b for a, b in zip(samples[name], samples[base], strict=True)] for name, base in pairs}


async def run(
    engine_dir: Path, place: Path, streams: list[int], lengths: tuple[int, int], rounds: int
) -> tuple[Samples, Samples]:
    """Start the three, measure, stop them."""
    kv_tokens = max(streams) * (sum(lengths) + 32)
    kv = {"max_tokens_in_paged_kv_cache": kv_tokens, "enable_kv_cache_reuse": False}
    repository = render(describe(engine_dir=engine_dir, **kv), place / "repository")
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, load, (engine_dir, kv_tokens)) as pool,
        serve(repository, name="triton overhead") as triton,
        serve_openai(triton, engine_dir, name="openai overhead") as door,
    ):
        unbound = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=door.url, trust_env=False, timeout=300, limits=unbound
        ) as client:
            backend = TritonBackend(triton.grpc, triton.url, triton.metrics)
            ways = {
                ENGINE: partial(asyncio.get_running_loop().run_in_executor, pool, alone),
                TRITON: partial(through_triton, backend),
                OPENAI: partial(through_openai, client),
            }
            return await measure(ways, streams, lengths, rounds)


def triton_overhead(
    model: Annotated[Path, typer.Option(help="a Hugging Face folder")] = Path("models/course"),
    dtype: str = "bfloat16",
    streams: Annotated[str, typer.Option(help="requests at once, each number in turn")] = "1,8,32",
    input_len: int = 32,
    output_len: int = 64,
    rounds: int = 5,
    threads: Annotated[int, typer.Option(help="of each engine")] = 2,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Measure, print, and keep two records."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # the engines' processes inherit it
    counts = [int(one) for one in streams.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        limits = BuildConfig(
            max_batch_size=max(counts), max_input_len=input_len, max_seq_len=input_len + output_len
        )
        checkpoint = convert(model, Path(folder) / "checkpoint", dtype=dtype)
        engine = build(checkpoint, Path(folder) / "engine", limits, tokenizer_dir=model)
        lengths = input_len, output_len
        firsts, rates = asyncio.run(run(engine.path, Path(folder), counts, lengths, rounds))
    what = f"{model.name} in {dtype}, {input_len} tokens in, {output_len} out"
    command = command_line(
        "compare triton-overhead", model=model, dtype=dtype, streams=streams, input_len=input_len, output_len=output_len,
        rounds=rounds, threads=threads,
    )  # fmt: skip
    facts = [
        ("ttft", f"{what}: time to first token, median of the streams", "s", firsts),
        ("rate", f"{what}: output tokens per second of all streams", "tokens/s", rates),
    ]
    for record in keep("triton-overhead", facts, command, out):
        for name, values in ratios(record.values).items():
            print(f"  {name}: {statistics.median(values):.2f} × the engine")
