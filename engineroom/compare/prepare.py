"""What is compared is made first: the model's folder, a checkpoint, an engine with room for the workloads."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from engineroom.checkpoint import convert
from engineroom.compare.settings import CompareError
from engineroom.compare.measure import Workload
from engineroom.compare.openvino import export
from engineroom.compare.random_weights import random_checkpoint
from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import EngineDir
from engineroom.load.shape import SHAPES, write_shape

DTYPES = ("bfloat16", "float16", "float32")


def workload(text: str) -> Workload:
    """ "16x128-64": 16 streams, 128 tokens in, 64 out. Raises CompareError."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)-([1-9]\d*)", text.strip())
    if not found:
        raise CompareError(
            f"--workloads {text!r}: expected streams x tokens in - tokens out, such as 16x128-64."
        )
    return Workload(*map(int, found.groups()))


def model(name: str, dtype: str, device: str, place: Path) -> tuple[Path, Path]:
    """(Hugging Face folder, TensorRT-LLM checkpoint). Raises CompareError for a dtype that no engine has."""
    if dtype not in DTYPES:
        raise CompareError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}.")
    if name in SHAPES:
        source = write_shape(name, place)
        return source, random_checkpoint(source, place / "checkpoint", dtype, device)
    return Path(name), convert(name, place / "checkpoint", dtype=dtype)


def openvino(engines: list[str], source: Path, dtype: str, place: Path) -> Path | None:
    if "openvino" not in engines:
        return None
    if not any(source.glob("*.safetensors")):
        raise CompareError("openvino converts a model with its weights; a shape has none.")
    return export(source, place / "openvino", dtype)


def engine(
    source: Path, checkpoint: Path, loads: list[Workload], device: str, place: Path
) -> tuple[EngineDir, float]:
    """The engine, and the seconds of its build: nothing comes out of a cache."""
    os.environ |= {"ENGINEROOM_BUILDS": f"{place}/builds", "TORCHINDUCTOR_CACHE_DIR": f"{place}/inductor"}
    limits = BuildConfig(
        max_batch_size=max(load.streams for load in loads),
        max_input_len=max(load.input_len for load in loads),
        max_seq_len=max(load.input_len + load.output_len for load in loads),
    )
    began = time.perf_counter()
    made = build(
        checkpoint, place / "engine", limits, device=device, tokenizer_dir=source, say=lambda line: None
    )
    return made, time.perf_counter() - began


def refit_seconds(engine: EngineDir, checkpoint: Path, place: Path) -> float:
    began = time.perf_counter()
    shutil.rmtree(refit(engine.path, checkpoint, place / "refitted").path)
    return time.perf_counter() - began
