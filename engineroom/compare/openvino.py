"""OpenVINO GenAI, Intel's runtime, from a Python environment of its own (`bootstrap.py --openvino`).

Names are those of openvino_genai.ContinuousBatchingPipeline and of optimum-cli.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engineroom.compare.settings import CompareError, EngineSettings, TokenIds
from engineroom.kit.environment import child_environment

ENVIRONMENT = Path(__file__).parents[2] / ".venv" / "openvino"
WEIGHT_FORMATS = {"float32": "fp32", "float16": "fp16"}  # optimum-cli's names
PRECISIONS = {"float32": "f32", "float16": "f16"}  # the runtime's names


def export(model_dir: Path, output_dir: Path, dtype: str) -> Path:
    """Write the model in OpenVINO's format and return `output_dir`.

    Raises CompareError when the environment is missing, for a dtype that the exporter cannot write, and when the
    exporter fails.
    """
    program = ENVIRONMENT / "bin" / "optimum-cli"
    if not program.exists():
        raise CompareError("OpenVINO is not installed. Run `python3 bootstrap.py --openvino` first.")
    if dtype not in WEIGHT_FORMATS:
        raise CompareError(f"OpenVINO's exporter writes {' and '.join(WEIGHT_FORMATS)}, not {dtype}.")
    command = [program, "export", "openvino", "--model", model_dir, "--task", "text-generation-with-past"]
    command += ["--weight-format", WEIGHT_FORMATS[dtype], output_dir]
    environment = child_environment({"HF_HUB_OFFLINE": "1"})
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    if process.returncode:
        raise CompareError(f"optimum-cli failed: {process.stderr[-500:]}")
    return output_dir


class OpenVinoEngine:
    """Continuous batching; weights, computation and KV cache have the same precision."""

    def __init__(self, settings: EngineSettings) -> None:
        sys.path[:0] = map(str, ENVIRONMENT.glob("lib/python*/site-packages"))
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.max_num_seqs = settings.max_batch_size
        scheduler.cache_size = 1  # GB
        scheduler.max_num_batched_tokens = max(settings.max_num_tokens, settings.max_seq_len)
        scheduler.enable_prefix_caching = False
        precision = PRECISIONS[settings.dtype]
        properties = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
            "INFERENCE_NUM_THREADS": settings.threads,
        }
        model_dir = str(settings.openvino_dir)
        self.pipeline = genai.ContinuousBatchingPipeline(model_dir, scheduler, "CPU", properties)
        self.genai = genai

    def generate(self, prompts: TokenIds, max_tokens: int) -> TokenIds:
        import openvino

        config = self.genai.GenerationConfig(max_new_tokens=max_tokens, ignore_eos=True, do_sample=False)
        tensors = [openvino.Tensor([prompt]) for prompt in prompts]  # [1, prompt_len] each
        results = self.pipeline.generate(tensors, [config] * len(prompts))
        return [list(result.m_generation_ids[0]) for result in results]
