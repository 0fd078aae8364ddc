"""`engineroom compare offline`: engines side by side on this machine, kept as records.

On a GPU the record of a workload has tokens per second, beside the floor that the bandwidth of the memory sets. On a
CPU, which is shared and noisy, it has ratios to vLLM in the same round; tokens per second are in one beside it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer

from engineroom.checkpoint import open_checkpoint
from engineroom.compare import prepare
from engineroom.compare.settings import Job
from engineroom.compare.measure import Measured, compare
from engineroom.compare.random_weights import copy_bandwidth
from engineroom.engine.build import nbytes
from engineroom.engine.directory import EngineDir, package
from engineroom.kit.record import Row, command_line, keep

STARTS = 2


def offline(
    model: Annotated[
        str, typer.Option(help="a Hugging Face folder, or a shape with random weights")
    ] = "models/course",
    engines: str = "aot,vllm,eager,transformers",
    workloads: Annotated[str, typer.Option(help="streams x tokens in - tokens out")] = "1x128-128,16x128-128",
    rounds: int = 5,
    dtype: str = "bfloat16",
    device: str = "cpu",
    threads: int = 2,
    folder: Annotated[Path | None, typer.Option(help="where there is room for twice the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Build an engine for the workloads, then measure all engines in turn."""
    loads = [prepare.workload(one) for one in workloads.split(",")]
    tag = f"{device}-{Path(model).name}-{dtype}"
    command = command_line(
        "compare offline", model=model, engines=engines, workloads=workloads, rounds=rounds, dtype=dtype, device=device,
        threads=threads,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as place:
        torch.set_num_threads(threads)
        source, checkpoint = prepare.model(model, dtype, device, Path(place))
        engine, build_seconds = prepare.engine(source, checkpoint, loads, device, Path(place))
        once = {
            "build s": build_seconds,
            "refit s": prepare.refit_seconds(engine, checkpoint, Path(place)),
            "code MB": (engine.path / package(0)).stat().st_size / 1e6,
        }
        limits = engine.build
        job = Job(
            source, engine.path, dtype, device, max(load.kv_tokens for load in loads),
            limits.max_batch_size, int(limits.max_seq_len or 0), int(limits.max_num_tokens or 0), threads,
            prepare.openvino(engines.split(","), source, dtype, Path(place)),
        )  # fmt: skip
        vocabulary = engine.model.vocab_size
        made = compare(job, loads, engines.split(","), rounds=rounds, starts=STARTS, vocabulary=vocabulary)
        floor = _floor(checkpoint, engine) if device == "cuda" else {}
    rows = [*_each(made, device, floor), *_all(made, once)]
    named = [(end, f"{tag}, {what}", unit, samples) for end, what, unit, samples in rows]
    keep(f"compare-{tag}", named, command, out)


def _floor(checkpoint: Path, engine: EngineDir) -> dict[str, list[float]]:
    """Tokens per second of one stream if each weight is read once a token; of the embedding, a step reads one row."""
    model = engine.model
    embedding = model.vocab_size * model.hidden_size * getattr(torch, engine.pretrained["dtype"]).itemsize
    per_token = nbytes(open_checkpoint(checkpoint)) - embedding
    return {"floor of the memory bandwidth": [copy_bandwidth() / per_token]}


def _each(made: Measured, device: str, floor: dict[str, list[float]]) -> Iterator[Row]:
    for load, rates in made.rates.items():
        what = f"{load.streams} streams, {load.input_len} tokens in, {load.output_len} out"
        rated = f"{what}: output tokens per second"
        if device == "cuda":
            yield f"{load}", rated, "tokens/s", rates | (floor if load.streams == 1 else {})
        else:
            if "vllm" in rates and len(rates) > 1:
                yield f"{load}", f"{rated}, relative to vLLM", "× vLLM", made.ratios(load, "vllm")
            yield f"{load}-rate", rated, "tokens/s", rates
        yield f"{load}-ttft", f"{what}: time to the first token of the last stream", "s", made.first[load]


def _all(made: Measured, once: dict[str, float]) -> Iterator[Row]:
    memory = {name: size / 1e9 for name, size in made.memory.items()}
    start, restart = ({name: seconds[n] for name, seconds in made.starts.items()} for n in range(STARTS))
    for end, what, unit, values in (
        ("start", "from the start of a process to its first token", "s", start),
        ("restart", "the same again: what the first start compiled is there", "s", restart),
        ("load", "loading the engine, of that", "s", made.load),
        ("memory", "resident memory at most", "GB", memory),
        ("engine", "the engine: building, refitting, size of its code", "", once),
    ):
        yield end, what, unit, {name: [value] for name, value in values.items()}
