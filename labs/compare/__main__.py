"""`python -m labs.compare`: engines side by side on this machine, kept as records.

On a GPU the records are tokens per second, beside the floor that the bandwidth of the memory sets. On a CPU, which is
shared and noisy, they are ratios to vLLM in the same round.
"""

from __future__ import annotations

import shlex
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from labs.checkpoint import convert, open_checkpoint
from labs.compare.engines import Job
from labs.compare.measure import Measured, Workload, compare
from labs.compare.sizes import copy_bandwidth, random_checkpoint
from labs.engine.build import build, nbytes, refit
from labs.engine.config import BuildConfig
from labs.engine.directory import EngineDir, package
from labs.kit.record import Record
from labs.load.shape import SHAPES, write_shape


def main(
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
    loads = [Workload(*map(int, one.replace("x", "-").split("-"))) for one in workloads.split(",")]
    tag = f"{device}-{Path(model).name}-{dtype}"
    asked = {"model": model, "engines": engines, "workloads": workloads, "rounds": rounds, "dtype": dtype}
    asked |= {"device": device, "threads": threads}
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    facts = {"command": shlex.join(["python", "-m", "labs.compare", *words])}
    floor: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source, checkpoint = _model(model, dtype, device, Path(place))
        limits = BuildConfig(
            max_batch_size=max(load.streams for load in loads),
            max_input_len=max(load.input_len for load in loads),
            max_seq_len=max(load.input_len + load.output_len for load in loads),
        )
        began = time.perf_counter()
        engine = build(checkpoint, Path(place) / "engine", limits, device=device, say=lambda line: None)
        once = {"build s": time.perf_counter() - began}
        if device == "cuda":
            per_token = nbytes(open_checkpoint(checkpoint)) - _embedding(engine)
            floor = {"floor of the memory bandwidth": [copy_bandwidth() / per_token]}
        else:
            began = time.perf_counter()
            refit(engine.path, checkpoint, Path(place) / "refitted")
            once["refit s"] = time.perf_counter() - began
        once["code MB"] = (engine.path / package(0)).stat().st_size / 1e6
        job = Job(
            source, engine.path, dtype, device, max(load.kv_tokens for load in loads),
            limits.max_batch_size, int(limits.max_seq_len or 0), int(engine.build.max_num_tokens or 0), threads,
        )  # fmt: skip
        names = engines.split(",")
        vocabulary = engine.model.vocab_size
        made = compare(job, loads, names, rounds=rounds, vocabulary=vocabulary)
    for load in loads:
        _record(made, load, tag, floor if load.streams == 1 else {}, facts).save(out)
    for name, what, unit, values in (
        ("start", "from the start of a process to its first token", "s", made.start),
        ("memory", "resident memory after the run", "GB", {k: v / 1e9 for k, v in made.memory.items()}),
        ("engine", "the engine: building, refitting, size of its code", "", once),
    ):
        samples = {key: [value] for key, value in values.items()}
        record = Record.measured(
            name=f"compare-{tag}-{name}", what=f"{tag}, {what}", unit=unit, samples=samples, **facts
        )
        record.save(out)
        print(record)


def _model(model: str, dtype: str, device: str, place: Path) -> tuple[Path, Path]:
    """(Hugging Face folder, TensorRT-LLM checkpoint)."""
    if model in SHAPES:
        source = write_shape(model, place)
        return source, random_checkpoint(source, place / "checkpoint", dtype, device)
    return Path(model), convert(model, place / "checkpoint", dtype=dtype)


def _embedding(engine: EngineDir) -> int:
    """Bytes of the embedding table, of which a step reads one row."""
    model = engine.model
    return model.vocab_size * model.hidden_size * getattr(torch, engine.pretrained["dtype"]).itemsize


def _record(
    made: Measured, load: Workload, tag: str, floor: dict[str, list[float]], facts: dict[str, str]
) -> Record:
    what = f"{tag}, {load.streams} streams, {load.input_len} tokens in, {load.output_len} out: output tokens per second"
    samples, unit = made.rates[load] | floor, "tokens/s"
    if "cpu-" in tag:
        samples, unit, what = made.ratios(load, "vllm"), "× vLLM", f"{what}, relative to vLLM"
    record = Record.measured(name=f"compare-{tag}-{load}", what=what, unit=unit, samples=samples, **facts)
    print(record)
    return record


if __name__ == "__main__":
    typer.run(main)
