"""`engineroom compare offline`: engines side by side on this machine, kept as records.

On a GPU, the record of a workload has tokens per second, beside the bound that the memory bandwidth sets. A CPU is
shared and noisy: there the record has the ratios to vLLM in the same round, and a second one has tokens per second.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from engineroom.checkpoint import open_checkpoint
from engineroom.compare.measure import Comparison, check_engine_names, compare
from engineroom.compare.prepare import prepare_engine, prepare_model, prepare_openvino, time_refit
from engineroom.compare.settings import EngineSettings
from engineroom.compare.workload import BatchWorkload
from engineroom.engine.directory import EngineDir
from engineroom.kit.record import RecordRow, command_line, require_records_folder, save_records

STARTS = 2  # the first start of an engine may compile


def offline(
    model: Annotated[
        str, typer.Option(help="a Hugging Face folder, or the name of a shape, which gets random weights")
    ] = "models/course",
    engines: Annotated[str, typer.Option(help="separated by commas")] = "aot,vllm,eager,transformers",
    workloads: Annotated[
        str, typer.Option(help="streams x tokens in - tokens out; several, separated by commas")
    ] = "1x128-128,16x128-128",
    rounds: Annotated[int, typer.Option(min=1, help="rounds that are counted")] = 5,
    dtype: str = "bfloat16",
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="of each engine")] = 2,
    folder: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="work folder with space for twice the model"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Build an engine for the workloads, then measure all engines in turn."""
    require_records_folder(out)
    names = engines.split(",")
    check_engine_names(names)
    parsed_workloads = BatchWorkload.parse_list(workloads)
    command = command_line(
        "compare offline", model=model, engines=engines, workloads=workloads, rounds=rounds, dtype=dtype, device=device,
        threads=threads,
    )  # fmt: skip
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work_dir = Path(temporary)
        model_dir, checkpoint_dir = prepare_model(model, dtype, device, work_dir)
        engine, build_seconds = prepare_engine(model_dir, checkpoint_dir, parsed_workloads, device, work_dir)
        settings = EngineSettings.of_engine(
            engine,
            model_dir,
            kv_cache_tokens=max(workload.kv_cache_tokens for workload in parsed_workloads),
            threads=threads,
            openvino_dir=prepare_openvino(model_dir, dtype, work_dir) if "openvino" in names else None,
        )
        engine_facts = {
            "build s": build_seconds,
            "refit s": time_refit(engine, checkpoint_dir, work_dir),
            "code MB": engine.package.stat().st_size / 1e6,
        }
        comparison = compare(
            settings,
            parsed_workloads,
            names,
            rounds=rounds,
            starts=STARTS,
            vocab_size=engine.model.vocab_size,
        )
        bound = _bandwidth_bound(checkpoint_dir, engine) if device == "cuda" else {}
    tag = f"{device}-{Path(model).name}-{dtype}"
    rows = [*_workload_rows(comparison, device, bound), *_engine_rows(comparison, engine_facts)]
    tagged_rows = [(suffix, f"{tag}, {quantity}", unit, values) for suffix, quantity, unit, values in rows]
    save_records(f"compare-{tag}", tagged_rows, command, out)


def _bandwidth_bound(checkpoint_dir: Path, engine: EngineDir) -> dict[str, list[float]]:
    """Tokens per second of one stream if a step only read each weight once; of the embedding it reads one row."""
    embedding = (
        engine.model.vocab_size * engine.model.hidden_size * getattr(torch, engine.model.dtype).itemsize
    )
    bytes_per_token = open_checkpoint(checkpoint_dir).nbytes - embedding
    return {"floor of the memory bandwidth": [copy_bandwidth() / bytes_per_token]}


def copy_bandwidth(gigabytes: int = 8, repeats: int = 20) -> float:
    """Bytes per second that a copy within the GPU's memory reads and writes together; the median of the repeats."""
    source = torch.empty(gigabytes * 10**9 // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    rates = []
    for _ in range(repeats):
        begin = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        seconds = begin.elapsed_time(end) / 1e3
        rates.append(2 * source.nbytes / seconds)
    return statistics.median(rates[1:])  # the first copy warms up


def _workload_rows(comparison: Comparison, device: str, bound: dict[str, list[float]]) -> Iterator[RecordRow]:
    for workload, rates in comparison.rates.items():
        quantity = f"{workload.description}: output tokens per second"
        if device == "cuda":
            yield str(workload), quantity, "tokens/s", rates | (bound if workload.streams == 1 else {})
        else:
            if "vllm" in rates and len(rates) > 1:
                ratios = comparison.ratios(workload, "vllm")
                yield str(workload), f"{quantity}, relative to vLLM", "× vLLM", ratios
            yield f"{workload}-rate", quantity, "tokens/s", rates
        ttft = comparison.ttft[workload]
        yield (
            f"{workload}-ttft",
            f"{workload.description}: time to the first token of the last stream",
            "s",
            ttft,
        )


def _engine_rows(comparison: Comparison, engine_facts: dict[str, float]) -> Iterator[RecordRow]:
    starts = comparison.start_seconds
    first_start = {name: [seconds[0]] for name, seconds in starts.items()}
    second_start = {name: [seconds[1]] for name, seconds in starts.items()}
    load = {name: [seconds] for name, seconds in comparison.load_seconds.items()}
    memory = {name: [size / 1e9] for name, size in comparison.peak_memory.items()}
    facts = {name: [value] for name, value in engine_facts.items()}
    yield "start", "from the start of a process to its first token", "s", first_start
    yield "restart", "the same for a second start, after the first one compiled", "s", second_start
    yield "load", "loading the engine, part of the second start", "s", load
    yield "memory", "peak resident memory", "GB", memory
    yield "engine", "the engine: build time, refit time, size of its code", "", facts
