"""`vllm bench serve`, vLLM's own load generator, run against a server of ours."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from engineroom.kit.errors import UserError
from engineroom.kit.process import ProgramFailed, Server, run
from engineroom.vllm.command import executable
from engineroom.vllm.model import locate


class BenchFailed(UserError, RuntimeError):
    """`vllm bench serve` ended with an error; the message has the end of its output."""


def bench_command(server: Server, result: Path, model: str, **flags: object) -> list[str]:
    """The command line for random prompts and all latencies, with the result in the file ``result``.

    ``flags`` are added, with underscores for hyphens.
    """
    line = [executable(), "bench", "serve", "--backend", "openai", "--base-url", server.url, "--model", model]
    line += ["--tokenizer", locate(model), "--dataset-name", "random", "--ignore-eos", "--disable-tqdm"]
    line += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99"]
    line += ["--save-result", "--result-dir", str(result.parent), "--result-filename", result.name]
    for name, value in flags.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    return line


def bench_serve(
    server: Server, *, model: str = "course", timeout: float = 300, **flags: object
) -> dict[str, float]:
    """Run the benchmark and return its result file: request_throughput, p50_ttft_ms, p99_itl_ms and so on.

    ``flags`` are vLLM's own with underscores, such as random_input_len, random_output_len, num_prompts, request_rate
    and max_concurrency. Raises BenchFailed when it fails or takes longer than ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        line = bench_command(server, result, model, **flags)
        try:
            output = run(line, name="vllm bench serve", timeout=timeout)
        except ProgramFailed as error:
            raise BenchFailed(str(error)) from None
        if not result.exists():
            raise BenchFailed(f"vllm bench serve wrote no result. Its output:\n{output[-2000:]}")
        return json.loads(result.read_text())
