"""`vllm bench serve`, the field's own load generator, on a server of ours."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from labs.kit.process import Server
from labs.serving.model import locate


class BenchFailed(RuntimeError):
    """`vllm bench serve` ended with an error; the message has the end of its output."""


def bench_command(
    url: str, folder: str, *, model: str, tokens: int, max_tokens: int, n: int, rate: float | None, users: int | None
) -> list[str]:
    """The command line: random prompts of fixed length, open loop at ``rate`` or closed loop with ``users``."""
    line = [str(Path(sys.executable).with_name("vllm")), "bench", "serve", "--backend", "openai", "--base-url", url]
    line += ["--model", model, "--tokenizer", locate(model), "--dataset-name", "random", "--ignore-eos", "--seed", "0"]
    line += ["--random-input-len", str(tokens), "--random-output-len", str(max_tokens), "--num-prompts", str(n)]
    line += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99", "--disable-tqdm"]
    line += ["--save-result", "--result-dir", folder, "--result-filename", "result.json"]
    line += ["--request-rate", str(rate)] if rate else []
    return line + (["--max-concurrency", str(users)] if users else [])


def vllm_bench(
    server: Server, *, tokens: int, max_tokens: int, n: int = 64, rate: float | None = None, users: int | None = None,
    model: str = "course", timeout: float = 300,
) -> dict[str, float]:  # fmt: skip
    """Run it and return its result file: request_throughput, p50_ttft_ms, p99_itl_ms … as vLLM names them.

    Raises BenchFailed when it fails or takes longer than ``timeout`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        line = bench_command(server.url, folder, model=model, tokens=tokens, max_tokens=max_tokens, n=n, rate=rate, users=users)  # fmt: skip
        try:
            run = subprocess.run(line, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise BenchFailed(f"vllm bench serve took longer than {timeout:g} s; ask for fewer prompts.") from error
        result = Path(folder) / "result.json"
        if run.returncode or not result.exists():
            raise BenchFailed("vllm bench serve failed:\n" + "\n".join((run.stdout + run.stderr).splitlines()[-15:]))
        return json.loads(result.read_text())
