"""`engineroom compare served`: our engine's server beside vLLM's, over HTTP, kept as records.

`engineroom compare offline` measures the engines; this command measures what a client sees of them. Both servers run
all the time, the same requests go to each in turn, and a first round is not counted.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from engineroom import load, vllm
from engineroom.compare.measure import SETTLE_SECONDS
from engineroom.compare.prepare import prepare_engine, prepare_model
from engineroom.compare.settings import CompareError, TokenIds
from engineroom.compare.workload import BatchWorkload
from engineroom.kit.process import Server
from engineroom.kit.record import RecordRow, command_line, require_records_folder, save_records
from engineroom.openai.start import serve_engine

SERVED_MODEL_NAME = "compared"
START_TIMEOUT = 600  # seconds
# for each field of ServerSample: the end of its record's name, what it is, its unit
COLUMNS = (
    ("rate", "output tokens per second", "tokens/s"),
    ("ttft", "median TTFT", "s"),
    ("itl-p99", "99th percentile of ITL", "s"),
)


class ServerSample(NamedTuple):
    """One round of one server, measured by its client.

    `rate` is in output tokens per second of all streams, the other two are in seconds.
    """

    rate: float
    median_ttft: float
    itl_p99: float


def compare_servers(
    servers: dict[str, Server],
    workload: BatchWorkload,
    rounds: int,
    model: str = SERVED_MODEL_NAME,
    log: Callable[[str], object] = print,
) -> dict[str, list[ServerSample]]:
    """By server, one sample for each round. Raises CompareError for an answer of the wrong length."""
    samples: dict[str, list[ServerSample]] = {name: [] for name in servers}
    for round_index in range(rounds + 1):
        prompts = load.random_prompts(workload.streams, workload.input_len, seed=round_index)
        for name, server in servers.items():
            sample = _run_turn(name, server, prompts, workload, model)
            if round_index > 0:  # the first round warms the servers up
                samples[name].append(sample)
            time.sleep(SETTLE_SECONDS.get(name, 0))
    for name, server_samples in samples.items():
        medians = [f"{statistics.median(column):.4g}" for column in zip(*server_samples, strict=True)]
        log(f"{workload}, {name}: {', '.join(medians)}")
    return samples


def _run_turn(
    name: str, server: Server, prompts: TokenIds, workload: BatchWorkload, model: str
) -> ServerSample:
    requests = load.closed_loop(
        server, prompts, workload.output_len, workload.streams, model=model, temperature=0, ignore_eos=True
    )
    traces = asyncio.run(requests)
    for trace in traces:
        if trace.error:
            raise CompareError(f"{name} did not answer: {trace.error}")
        if trace.output_tokens != workload.output_len:
            count = "an unknown number" if trace.output_tokens is None else trace.output_tokens
            raise CompareError(f"{name} answered with {count} of {workload.output_len} tokens.")
    gaps = [gap for trace in traces for gap in load.itl(trace)]
    seconds = max(trace.arrivals[-1] for trace in traces) - min(trace.sent for trace in traces)
    return ServerSample(
        rate=workload.streams * workload.output_len / seconds,
        median_ttft=statistics.median(map(load.ttft, traces)),
        itl_p99=load.percentile(gaps, 99),
    )


@contextmanager
def start_servers(
    model_dir: Path, engine_dir: Path, workloads: list[BatchWorkload], device: str
) -> Iterator[dict[str, Server]]:
    """Both servers with the same limits, KV caches that hold every workload, and no reuse of prefixes."""
    flags: dict[str, Any] = {
        "max_num_seqs": max(workload.streams for workload in workloads),
        "max_model_len": max(workload.input_len + workload.output_len for workload in workloads),
        "no_enable_prefix_caching": True,
    }
    if device == "cuda":
        flags["gpu_memory_utilization"] = 0.5  # both servers share the GPU
    if not any(model_dir.glob("*.safetensors")):
        flags["load_format"] = "dummy"
    aot = serve_engine(
        engine_dir,
        name="aot",
        timeout=START_TIMEOUT,
        served_model_name=SERVED_MODEL_NAME,
        max_tokens_in_paged_kv_cache=max(workload.kv_cache_tokens for workload in workloads),
        enable_block_reuse=False,
    )
    with (
        aot,
        vllm.serve(
            str(model_dir), timeout=START_TIMEOUT, served_model_name=SERVED_MODEL_NAME, **flags
        ) as other,
    ):
        yield {"aot": aot, "vllm": other}


def served(
    model: Annotated[
        str, typer.Option(help="a Hugging Face folder, or the name of a shape, which gets random weights")
    ] = "llama-3.1-8b",
    workloads: Annotated[
        str, typer.Option(help="streams x tokens in - tokens out; several, separated by commas")
    ] = "1x128-128,16x128-128,64x128-128",
    rounds: Annotated[int, typer.Option(min=1, help="rounds that are counted")] = 5,
    dtype: str = "bfloat16",
    device: Annotated[str, typer.Option(help="cuda or cpu")] = "cuda",
    folder: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="work folder with space for twice the model"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Build an engine for the workloads, serve it beside vLLM, and measure both in turn."""
    require_records_folder(out)
    parsed_workloads = BatchWorkload.parse_list(workloads)
    command = command_line(
        "compare served", model=model, workloads=workloads, rounds=rounds, dtype=dtype, device=device
    )
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work_dir = Path(temporary)
        model_dir, checkpoint_dir = prepare_model(model, dtype, device, work_dir)
        engine, _ = prepare_engine(model_dir, checkpoint_dir, parsed_workloads, device, work_dir)
        with start_servers(model_dir, engine.path, parsed_workloads, device) as servers:
            gc.collect()
            gc.freeze()  # a full collection in this process, the client, would count as the server's time
            samples = {workload: compare_servers(servers, workload, rounds) for workload in parsed_workloads}
    tag = f"{device}-{Path(model).name}-{dtype}"
    save_records(f"served-{tag}", _rows(samples, tag), command, out)


def _rows(samples: dict[BatchWorkload, dict[str, list[ServerSample]]], tag: str) -> Iterator[RecordRow]:
    for workload, by_server in samples.items():
        for column, (suffix, quantity, unit) in enumerate(COLUMNS):
            values = {name: [sample[column] for sample in rounds] for name, rounds in by_server.items()}
            yield f"{workload}-{suffix}", f"{tag} over HTTP, {workload.description}: {quantity}", unit, values
