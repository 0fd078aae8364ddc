"""Steps of the engine for NVIDIA's profilers: between two calls of the CUDA profiler API, with NVTX ranges.

Run as `python -m labs.profile.under_nsys ENGINE` under `nsys` or `ncu`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.model_runner import ModelRunner
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.span import spans
from engineroom.kit.command import application, run
from engineroom.kit.errors import UserError

app = application(None)
PROMPT, ANSWER = 128, 32  # tokens


class NoGpu(UserError, RuntimeError):
    """There is nothing for NVIDIA's profilers to record."""


class _WithoutCudaGraphs(ModelRunner):
    use_cuda_graphs = False


class _ExecutorWithoutCudaGraphs(Executor):
    model_runner_class = _WithoutCudaGraphs


def run_steps(engine: Path, batch: int, *, cuda_graphs: bool = True) -> None:
    """Serve `batch` prompts twice; only the second time lies within the profiler's range.

    Raises NoGpu without a GPU, EngineError, and RequestError for a batch beyond the engine's limits.
    """
    if not torch.cuda.is_available():
        raise NoGpu(
            "PyTorch sees no CUDA GPU, and nsys and ncu record CUDA work. Run this on a machine with a GPU."
        )
    executor = (Executor if cuda_graphs else _ExecutorWithoutCudaGraphs)(engine)
    draw = np.random.default_rng(11)
    prompts = draw.integers(2, executor.engine.model.vocab_size, (batch, PROMPT)).tolist()
    params = SamplingParams(max_tokens=ANSWER)
    executor.generate(prompts, params)
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    with spans(torch.cuda.nvtx.range):
        executor.generate(prompts, params)
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


@app.command()
def main(
    engine: Annotated[Path, typer.Argument(help="an engine directory")],
    batch: Annotated[int, typer.Option(help="sequences that are served together", min=1)] = 8,
    cuda_graphs: Annotated[bool, typer.Option(help="launch a decode step as one CUDA graph")] = True,
) -> None:
    """Serve prompts with ENGINE on a GPU for a profiler of NVIDIA."""
    run_steps(engine, batch, cuda_graphs=cuda_graphs)


if __name__ == "__main__":
    run(app)
