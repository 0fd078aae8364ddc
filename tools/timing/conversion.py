"""`engineroom timing conversion`: time and memory of a conversion, against copying the same bytes.

Both write to the same disk, one after the other in each repetition, and both are timed until the bytes are on it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer

from engineroom.checkpoint import Layout, Mapping, convert
from engineroom.checkpoint.config import from_hugging_face
from engineroom.checkpoint.plan import sources
from engineroom.checkpoint.source import INDEX
from engineroom.checkpoint.tensorfile import create
from engineroom.kit.record import command_line, keep
from engineroom.load.shape import SHAPES

CHUNK = 64 * 2**20
SHARDS = 4


def write_source(shape: dict[str, Any], folder: Path) -> Path:
    """A Hugging Face folder of that shape in bfloat16, its weights random bytes, in four files with an index."""
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", **shape}
    (folder / "config.json").write_text(json.dumps(config))
    needed = sources(from_hugging_face(config, folder))
    names, index, noise = sorted(needed), {}, os.urandom(CHUNK)
    for number in range(SHARDS):
        file = folder / f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        places = create(file, {name: ("BF16", needed[name]) for name in names[number::SHARDS]})
        index |= dict.fromkeys(places, file.name)
        with file.open("r+b") as out:
            out.seek(min(place.begin for place in places.values()))
            left = sum(place.nbytes for place in places.values())
            while left:
                left -= out.write(noise[: min(CHUNK, left)])
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return folder


def timed_copy(source: Path, target: Path) -> float:
    """Seconds to copy a folder and have it on the disk; the copy is removed."""
    os.sync()
    began = time.perf_counter()
    shutil.copytree(source, target)
    os.sync()
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def timed_conversion(source: Path, target: Path, tp_size: int) -> tuple[float, float, float, int]:
    """(seconds, growth of memory, peak memory, largest rank file; all in bytes), in a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=_convert, args=(theirs, source, target, tp_size)
    )
    os.sync()
    child.start()
    theirs.close()
    seconds, before, after = ours.recv()
    child.join()
    largest = max(file.stat().st_size for file in target.glob("*.safetensors"))
    shutil.rmtree(target)
    return seconds, after - before, after, largest


def _convert(pipe: Connection, source: Path, target: Path, tp_size: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    began = time.perf_counter()
    convert(source, target, layout=Layout(Mapping(tp_size)))
    os.sync()
    seconds = time.perf_counter() - began
    pipe.send((seconds, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def conversion(
    shape: Annotated[str, typer.Argument(help=f"one of: {', '.join(SHAPES)}")] = "llama-3.1-8b",
    tp_size: Annotated[int, typer.Option("--tp_size")] = 1,
    repeat: int = 5,
    folder: Annotated[Path | None, typer.Option(help="where there is room for three times the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the records")] = None,
) -> None:
    """Convert a model of SHAPE and copy it, in turn, and keep both ratios as records."""
    times: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        source = write_source(SHAPES[shape], Path(place) / "source")
        for _ in range(repeat):
            copying = timed_copy(source, Path(place) / "copy")
            seconds, _, peak, largest = timed_conversion(source, Path(place) / "made", tp_size)
            times.append(seconds / copying)
            memory.append(peak / largest)
            print(
                f"copy {copying:.1f} s, convert {seconds:.1f} s, peak {peak / 1e6:.0f} MB of {largest / 1e9:.2f} GB"
            )
    what = f"Converting {shape} (bfloat16, tp_size {tp_size})"
    command = command_line("timing conversion", shape, "--tp_size", tp_size, "--repeat", repeat)
    rows = [
        ("time", f"{what}: time, relative to copying its files", "ratio", {"ratio": times}),
        ("memory", f"{what}: peak memory, relative to the largest rank file", "ratio", {"ratio": memory}),
    ]
    keep(f"convert-{shape.split('-')[-1]}-tp{tp_size}", rows, command, out)
