"""`engineroom compare served`: the engine's own server beside vLLM's, over HTTP, on a GPU, kept as records.

`engineroom.compare` measures the engines; here is what is left of it for a client. Both servers run all the time, the same
requests go to each in turn, and one round before is not counted.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from engineroom import load, vllm
from engineroom.compare import prepare
from engineroom.compare.settings import CompareError
from engineroom.compare.measure import REST, Workload
from engineroom.kit.process import Server
from engineroom.kit.record import Row, command_line, keep
from engineroom.openai.start import serve_engine

UNITS = {"rate": "tokens/s", "ttft": "s", "itl-p99": "s"}
WHAT = {"rate": "output tokens per second", "ttft": "median TTFT", "itl-p99": "99th percentile of ITL"}
MODEL = "compared"


class Seen(NamedTuple):
    """One round of one server, by its client: tokens per second, and seconds; the names are those of `UNITS`."""

    rate: float
    ttft: float
    itl_p99: float


def served(
    servers: dict[str, Server],
    one: Workload,
    rounds: int,
    model: str = MODEL,
    say: Callable[[str], object] = print,
) -> dict[str, list[Seen]]:
    """By server, one Seen a round. Raises CompareError for an answer that is not as long as it should be."""
    made: dict[str, list[Seen]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        prompts = load.random_prompts(one.streams, one.input_len, seed=number)
        for name, server in servers.items():
            seen = _round(name, server, prompts, one, model)
            if number:
                made[name].append(seen)
            time.sleep(REST.get(name, 0))
    for name, seen in made.items():
        say(
            f"{one}, {name}: "
            + ", ".join(f"{statistics.median(column):.4g}" for column in zip(*seen, strict=True))
        )
    return made


def _round(name: str, server: Server, prompts: list[list[int]], one: Workload, model: str) -> Seen:
    traces = asyncio.run(
        load.closed_loop(
            server, prompts, one.output_len, one.streams, model=model, temperature=0, ignore_eos=True
        )
    )
    for trace in traces:
        if trace.error or len(trace.arrivals) != one.output_len:
            raise CompareError(f"{name} gave {len(trace.arrivals)} of {one.output_len} tokens: {trace.error}")
    gaps = [gap for trace in traces for gap in load.itl(trace)]
    seconds = max(trace.arrivals[-1] for trace in traces) - min(trace.sent for trace in traces)
    ttft = statistics.median(map(load.ttft, traces))
    return Seen(one.streams * one.output_len / seconds, ttft, load.percentile(gaps, 99))


def start(source: Path, engine: Path, loads: list[Workload], device: str) -> dict[str, Callable[[], Server]]:
    """How each server is started: the same limits, as much room for the KV cache, no reuse of prefixes."""
    streams, length = max(one.streams for one in loads), max(one.input_len + one.output_len for one in loads)
    room = max(one.kv_tokens for one in loads)
    flags: dict[str, object] = {
        "max_num_seqs": streams,
        "max_model_len": length,
        "no_enable_prefix_caching": True,
    }
    if device == "cuda":
        flags["gpu_memory_utilization"] = 0.5
    if not any(source.glob("*.safetensors")):
        flags["load_format"] = "dummy"
    ours = {"max_tokens_in_paged_kv_cache": room, "enable_block_reuse": False, "timeout": 600}
    return {
        "aot": lambda: serve_engine(engine, name="aot", served_model_name=MODEL, **ours),
        "vllm": lambda: vllm.serve(str(source), served_model_name=MODEL, timeout=600, **flags),
    }


def served_command(
    model: Annotated[
        str, typer.Option(help="a Hugging Face folder, or a shape with random weights")
    ] = "llama-3.1-8b",
    workloads: Annotated[
        str, typer.Option(help="streams x tokens in - tokens out")
    ] = "1x128-128,16x128-128,64x128-128",
    rounds: int = 5,
    dtype: str = "bfloat16",
    device: str = "cuda",
    folder: Annotated[Path | None, typer.Option(help="where there is room for twice the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Build an engine for the workloads, serve it beside vLLM, measure both in turn."""
    loads = [prepare.workload(one) for one in workloads.split(",")]
    command = command_line(
        "compare served",
        model=model,
        workloads=workloads,
        rounds=rounds,
        dtype=dtype,
        device=device,
    )
    with tempfile.TemporaryDirectory(dir=folder) as place, ExitStack() as stack:
        source, checkpoint = prepare.model(model, dtype, device, Path(place))
        engine, _ = prepare.engine(source, checkpoint, loads, device, Path(place))
        ways = start(source, engine.path, loads, device)
        servers = {name: stack.enter_context(begin()) for name, begin in ways.items()}
        gc.collect()
        gc.freeze()  # this is the client: a full collection in it would be measured as a server's
        seen = {one: served(servers, one, rounds) for one in loads}
    tag = f"{device}-{Path(model).name}-{dtype}"
    keep(f"served-{tag}", _rows(seen, tag), command, out)


def _rows(seen: dict[Workload, dict[str, list[Seen]]], tag: str) -> Iterator[Row]:
    for one, made in seen.items():
        what = f"{tag} over HTTP, {one.streams} streams, {one.input_len} tokens in, {one.output_len} out"
        for column, (end, unit) in enumerate(UNITS.items()):
            samples = {name: [row[column] for row in rows] for name, rows in made.items()}
            yield f"{one}-{end}", f"{what}: {WHAT[end]}", unit, samples
