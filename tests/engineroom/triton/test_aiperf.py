"""AIPerf, NVIDIA's load generator, on Triton's own streaming endpoint: its template endpoint and its own report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from engineroom.triton.server import Triton
from tests.engineroom.engine.conftest import COURSE
from tests.engineroom.triton.conftest import ROOT, steps

AIPERF = ROOT / ".venv" / "aiperf" / "bin" / "aiperf"
REQUESTS, TOKENS = 12, 8
PAYLOAD = '{"text_input": {{ text|tojson }}, "max_tokens": {{ max_tokens }}, "stream": true, "end_id": -1}'


def run(command: list[str], folder: Path, timeout: float) -> None:
    """Run AIPerf with its files in `folder`, and kill its whole process group, however it ends."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")  # no proxy listens there
    environment["USE_TORCH"] = "0"  # it needs only the tokenizer, and importing PyTorch takes seconds
    environment |= {
        "AIPERF_DATASET_MMAP_BASE_PATH": str(folder),
        "AIPERF_DATASET_MMAP_CACHE_ENABLED": "false",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output[-3000:]


@pytest.mark.timeout(400)
def test_aiperf_counts_every_request_and_its_tokens(triton: Triton, tmp_path: Path) -> None:
    assert AIPERF.exists(), "AIPerf is not installed. Install it with `python3 bootstrap.py --aiperf`."
    (tmp_path / "payload.j2").write_text(PAYLOAD)
    model = "tensorrt_llm_bls"
    command = [str(AIPERF), "profile", "--model", model, "--tokenizer", str(COURSE), "--url", triton.url]
    command += ["--custom-endpoint", f"/v2/models/{model}/generate_stream", "--endpoint-type", "template"]
    command += ["--extra-inputs", f"payload_template:{tmp_path / 'payload.j2'}"]
    command += ["--extra-inputs", "response_field:text_output", "--streaming", "--random-seed", "1"]
    command += ["--isl", "16", "--isl-stddev", "0", "--osl", str(TOKENS), "--osl-stddev", "0"]
    command += ["--concurrency", "4", "--request-count", str(REQUESTS), "--workers-max", "1"]
    command += ["--num-conversations", str(REQUESTS), "--artifact-dir", str(tmp_path), "--ui-type", "none"]
    steps_before = steps(triton)
    run([*command, "--no-gpu-telemetry", "--no-server-metrics"], tmp_path, 300)
    report = json.loads((tmp_path / "profile_export_aiperf.json").read_text())
    assert report["request_count"]["avg"] == REQUESTS and "error_request_count" not in report
    assert report["error_summary"] == [] and not report["was_cancelled"]
    # AIPerf tokenizes the text again, so it may count fewer tokens than were generated.
    assert REQUESTS * TOKENS * 0.6 < report["total_output_tokens"]["avg"] <= REQUESTS * TOKENS
    # The two are equal when all tokens of an answer arrive together.
    assert 0 < report["time_to_first_token"]["p50"] <= report["request_latency"]["p50"]
    assert 3 * TOKENS <= steps(triton) - steps_before <= REQUESTS * TOKENS * 2
