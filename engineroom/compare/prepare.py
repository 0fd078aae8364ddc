"""What a comparison needs before it starts: the model's folder, a checkpoint, and an engine for the workloads."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from engineroom.checkpoint import convert
from engineroom.compare.openvino import export
from engineroom.compare.random_weights import random_checkpoint
from engineroom.compare.settings import CompareError
from engineroom.compare.workload import BatchWorkload
from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import EngineDir
from engineroom.load.shape import SHAPES, write_shape

DTYPES = ("bfloat16", "float16", "float32")


def prepare_model(name: str, dtype: str, device: str, work_dir: Path) -> tuple[Path, Path]:
    """The Hugging Face folder and the TensorRT-LLM checkpoint of a model.

    `name` is a Hugging Face folder, or a shape in SHAPES, which gets random weights. Raises CompareError for a dtype
    that no engine supports.
    """
    if dtype not in DTYPES:
        raise CompareError(f"--dtype {dtype}: expected one of {', '.join(DTYPES)}.")
    if name in SHAPES:
        model_dir = write_shape(name, work_dir)
        return model_dir, random_checkpoint(model_dir, work_dir / "checkpoint", dtype, device)
    return Path(name), convert(name, work_dir / "checkpoint", dtype=dtype)


def prepare_openvino(model_dir: Path, dtype: str, work_dir: Path) -> Path:
    """The folder of the model in OpenVINO's format. Raises CompareError for a model without weights."""
    if not any(model_dir.glob("*.safetensors")):
        raise CompareError(
            "openvino needs a model with weights, and a shape has none. Leave openvino out of --engines."
        )
    return export(model_dir, work_dir / "openvino", dtype)


def prepare_engine(
    model_dir: Path, checkpoint_dir: Path, workloads: list[BatchWorkload], device: str, work_dir: Path
) -> tuple[EngineDir, float]:
    """The engine, and the seconds that its build took. The caches are empty, so everything is compiled."""
    os.environ["ENGINEROOM_BUILDS"] = f"{work_dir}/builds"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{work_dir}/inductor"
    config = BuildConfig(
        max_batch_size=max(workload.streams for workload in workloads),
        max_input_len=max(workload.input_len for workload in workloads),
        max_seq_len=max(workload.input_len + workload.output_len for workload in workloads),
    )
    engine_dir = work_dir / "engine"
    began = time.perf_counter()
    engine = build(
        checkpoint_dir, engine_dir, config, device=device, tokenizer_dir=model_dir, log=lambda _: None
    )
    return engine, time.perf_counter() - began


def time_refit(engine: EngineDir, checkpoint_dir: Path, work_dir: Path) -> float:
    """The seconds of a refit, whose result is deleted."""
    began = time.perf_counter()
    refitted = refit(engine.path, checkpoint_dir, work_dir / "refitted")
    seconds = time.perf_counter() - began
    shutil.rmtree(refitted.path)
    return seconds
