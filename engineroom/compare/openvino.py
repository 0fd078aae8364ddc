"""OpenVINO GenAI, Intel's runtime, out of an environment of its own (`bootstrap.py --openvino`).

Names are those of openvino_genai.ContinuousBatchingPipeline and of optimum-cli.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from engineroom.compare.settings import CompareError, Job, Prompts

HOME = Path(__file__).parents[2] / ".venv" / "openvino"
WEIGHTS = {"float32": "fp32", "float16": "fp16"}
PRECISION = {"float32": "f32", "float16": "f16"}


def export(model: Path, folder: Path, dtype: str) -> Path:
    """The model in OpenVINO's format. Raises CompareError without the environment, or when the exporter fails."""
    program = HOME / "bin" / "optimum-cli"
    if not program.exists():
        raise CompareError("OpenVINO is not installed. Run `python3 bootstrap.py --openvino` first.")
    if dtype not in WEIGHTS:
        raise CompareError(f"OpenVINO's exporter writes {' and '.join(WEIGHTS)}, not {dtype}.")
    line = [program, "export", "openvino", "--model", model, "--task", "text-generation-with-past"]
    line += ["--weight-format", WEIGHTS[dtype], folder]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise CompareError(f"optimum-cli failed: {done.stderr[-500:]}")
    return folder


class OpenVino:
    """Continuous batching with the same precision in weights, computation and KV cache."""

    def __init__(self, job: Job) -> None:
        sys.path[:0] = map(str, HOME.glob("lib/python*/site-packages"))
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs, scheduler.cache_size = job.max_batch_size, 1
        scheduler.max_num_batched_tokens = max(job.max_num_tokens, job.max_seq_len)
        scheduler.enable_prefix_caching = False
        precision = PRECISION[job.dtype]
        wanted = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
        wanted |= {"INFERENCE_NUM_THREADS": job.threads}
        self.pipeline = genai.ContinuousBatchingPipeline(str(job.openvino), scheduler, "CPU", wanted)
        self.genai = genai

    def run(self, prompts: Prompts, max_tokens: int) -> Prompts:
        import openvino

        config = self.genai.GenerationConfig(max_new_tokens=max_tokens, ignore_eos=True, do_sample=False)
        given = [openvino.Tensor([prompt]) for prompt in prompts]
        made = self.pipeline.generate(given, [config] * len(prompts))
        return [list(one.m_generation_ids[0]) for one in made]
