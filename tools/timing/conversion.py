"""`engineroom timing conversion`: time and memory of a conversion, compared with copying the same bytes.

Each repetition copies and then converts, on the same disk; both times end when the bytes are on the disk.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer

from engineroom.checkpoint import Mapping, Sharding, convert
from engineroom.checkpoint.config import from_hugging_face
from engineroom.checkpoint.plan import source_shapes
from engineroom.checkpoint.source import INDEX
from engineroom.checkpoint.tensorfile import create
from engineroom.kit.errors import UserError
from engineroom.kit.prctl import die_with_parent
from engineroom.kit.record import command_line, save_records
from engineroom.kit.signals import shield_children
from engineroom.load.shape import SHAPES

CHUNK_BYTES = 64 * 2**20
NUM_FILES = 4


@dataclass(frozen=True)
class TimedConversion:
    """One conversion: its time in seconds; its peak memory, the growth of memory and the largest rank file in bytes."""

    seconds: float
    peak_memory: float
    memory_growth: float
    largest_file: int


def write_source(shape: dict[str, Any], folder: Path) -> Path:
    """Write a Hugging Face folder of that shape: random bytes as bfloat16 weights, in four files with an index."""
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", **shape}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = source_shapes(from_hugging_face(config, folder))
    names, noise = sorted(shapes), os.urandom(CHUNK_BYTES)
    weight_map: dict[str, str] = {}
    for number in range(NUM_FILES):
        path = folder / f"model-{number + 1:05d}-of-{NUM_FILES:05d}.safetensors"
        tensors = create(path, {name: ("BF16", shapes[name]) for name in names[number::NUM_FILES]})
        weight_map |= dict.fromkeys(tensors, path.name)
        with path.open("r+b") as file:
            file.seek(min(tensor.offset for tensor in tensors.values()))
            remaining = sum(tensor.nbytes for tensor in tensors.values())
            while remaining:
                remaining -= file.write(noise[: min(CHUNK_BYTES, remaining)])
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def timed_copy(source: Path, target: Path) -> float:
    """Seconds until a copy of a folder is on the disk; the copy is removed."""
    os.sync()
    started = time.perf_counter()
    shutil.copytree(source, target)
    os.sync()
    seconds = time.perf_counter() - started
    shutil.rmtree(target)
    return seconds


def timed_conversion(source: Path, target: Path, tp_size: int) -> TimedConversion:
    """Convert in a process of its own, so that its memory is measured alone; the checkpoint is removed."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    process = context.Process(target=_convert, args=(sender, source, target, tp_size), daemon=True)
    os.sync()
    with shield_children():
        process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    finally:
        process.kill()
        process.join()
    if isinstance(outcome, UserError):
        raise outcome
    seconds, memory_before, peak_memory = outcome
    largest_file = max(file.stat().st_size for file in target.glob("*.safetensors"))
    shutil.rmtree(target)
    return TimedConversion(seconds, peak_memory, peak_memory - memory_before, largest_file)


def _convert(sender: Connection, source: Path, target: Path, tp_size: int) -> None:
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is None or not parent.is_alive():  # it has ended since it started this process
        return
    memory_before = _peak_memory()
    started = time.perf_counter()
    try:
        convert(source, target, sharding=Sharding(Mapping(tp_size)))
    except UserError as error:
        sender.send(error)
        return
    os.sync()
    seconds = time.perf_counter() - started
    sender.send((seconds, memory_before, _peak_memory()))


def _peak_memory() -> int:
    """Peak resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def conversion(
    shape: Annotated[str, typer.Argument(help=f"one of: {', '.join(SHAPES)}")] = "llama-3.1-8b",
    tp_size: Annotated[int, typer.Option("--tp_size")] = 1,
    repeat: int = 5,
    folder: Annotated[
        Path | None, typer.Option(help="a folder on a disk with space for three copies of the model")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the folder for the records")] = None,
) -> None:
    """Copy and convert a model of SHAPE in turn, and save the ratios of time and memory as records."""
    time_ratios: list[float] = []
    memory_ratios: list[float] = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = write_source(SHAPES[shape], Path(temporary) / "source")
        for _ in range(repeat):
            copy_seconds = timed_copy(source, Path(temporary) / "copy")
            timed = timed_conversion(source, Path(temporary) / "checkpoint", tp_size)
            time_ratios.append(timed.seconds / copy_seconds)
            memory_ratios.append(timed.peak_memory / timed.largest_file)
            memory = f"peak {timed.peak_memory / 1e6:.0f} MB of {timed.largest_file / 1e9:.2f} GB"
            print(f"copy {copy_seconds:.1f} s, convert {timed.seconds:.1f} s, {memory}")
    title = f"Converting {shape} (bfloat16, tp_size {tp_size})"
    command = command_line("timing conversion", shape, "--tp_size", tp_size, "--repeat", repeat)
    rows = [
        ("time", f"{title}: time, relative to copying its files", "ratio", {"ratio": time_ratios}),
        (
            "memory",
            f"{title}: peak memory, relative to the largest rank file",
            "ratio",
            {"ratio": memory_ratios},
        ),
    ]
    save_records(f"convert-{shape.split('-')[-1]}-tp{tp_size}", rows, command, out)
