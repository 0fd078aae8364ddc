"""Traces of the real engines: every step of ours with its parts, and vLLM's worker through its HTTP endpoints."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from engineroom.compare.workload import BatchWorkload
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.request import RequestError
from engineroom.engine.runtime.span import span
from engineroom.kit.errors import UserError
from engineroom.kit.process import Server
from engineroom.profile import record
from engineroom.profile.record import ENGINE_TRACE, VLLM_TRACE, ProfileError, profile_engine, profile_vllm
from engineroom.profile.reduce import MAX_RECORD_BYTES, reduce_trace
from engineroom.profile.table import covered_us, trace_table
from engineroom.profile.trace import Trace, TraceError, read_trace
from tests.engineroom.engine.conftest import checkpoint, engine
from tests.engineroom.load.stub_server import stub

__all__ = ["checkpoint", "engine"]
WORKLOAD = BatchWorkload(
    streams=3, input_len=30, output_len=6
)  # 90 tokens of context: two steps of at most 48


def calls(trace: Trace) -> dict[str, int]:
    return dict(Counter(event.name for event in trace.events if event.is_range))


@pytest.mark.parametrize(
    ("skip", "steps", "expected"),
    [
        (0, 2, {"step": 2, "schedule": 2, "context": 2, "generation": 1, "sample": 3, "read": 3}),
        (2, 3, {"step": 3, "schedule": 3, "generation": 3, "sample": 3, "read": 3}),
    ],
)
def test_the_engine_s_steps_and_their_parts(
    engine: EngineDir, tmp_path: Path, skip: int, steps: int, expected: dict[str, int]
) -> None:
    path = profile_engine(engine.path, WORKLOAD, steps, tmp_path / "out", skip=skip)
    assert path == tmp_path / "out" / ENGINE_TRACE
    trace = read_trace(path)
    assert calls(trace) == expected
    rows = {row.name: row for row in trace_table(trace)}
    assert rows["step"].total_us == pytest.approx(covered_us(trace.events)), (
        "all that ran is inside the steps"
    )
    assert any(row.category == "operator" for row in rows.values())
    assert span("step") is span("off"), "the ranges end with the recording"


def test_the_record_of_a_trace_says_how_to_record_it(engine: EngineDir, tmp_path: Path) -> None:
    trace = profile_engine(engine.path, WORKLOAD, 3, tmp_path)
    reduced = reduce_trace(trace, tmp_path / "reduced.json.gz", steps=2)
    assert reduced.stat().st_size < MAX_RECORD_BYTES
    origin = read_trace(reduced).provenance
    assert origin is not None
    assert origin["command"].startswith(
        f"engineroom profile engine {engine.path} --workload 3x30-6 --steps 3"
    )
    assert origin["versions"]["torch"] == torch.__version__
    assert (origin["engine"], origin["device"], origin["steps"]) == ("aot", "cpu", 2)


def test_a_recording_beyond_the_end_has_what_ran(engine: EngineDir, tmp_path: Path) -> None:
    assert calls(read_trace(profile_engine(engine.path, WORKLOAD, 99, tmp_path)))["step"] == 7
    with pytest.raises(TraceError, match="nothing ran"):
        profile_engine(engine.path, WORKLOAD, 1, tmp_path, skip=99)


def test_a_workload_beyond_the_engine_s_limits_is_refused(engine: EngineDir, tmp_path: Path) -> None:
    with pytest.raises(RequestError):
        profile_engine(engine.path, BatchWorkload(1, 5000, 4), 1, tmp_path / "out")
    with pytest.raises(UserError):
        profile_engine(tmp_path / "absent", WORKLOAD, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(600)
def test_a_trace_of_vllm_s_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a running event loop, as in a notebook."""
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path / "home"))

    async def notebook() -> Path:
        return profile_vllm("course", BatchWorkload(2, 16, 8), 4, tmp_path / "out")

    path = asyncio.run(notebook())
    assert path == tmp_path / "out" / VLLM_TRACE
    trace = read_trace(path)
    ranges = calls(trace)
    assert sum(count for name, count in ranges.items() if name.startswith("execute_")) == 4
    assert ranges["gpu_model_runner: forward"] == ranges["gpu_model_runner: sample"] == 4
    forward = {
        row.name for row in trace_table(trace, "gpu_model_runner: forward") if row.category == "operator"
    }
    assert "vllm::unified_attention_with_output" in forward
    assert trace.provenance is not None and trace.provenance["engine"] == "vllm"
    assert trace.provenance["command"].startswith(
        "engineroom profile vllm course --workload 2x16-8 --steps 4"
    )
    reduced = reduce_trace(path, tmp_path / "reduced.json.gz", steps=2)
    assert calls(read_trace(reduced))["gpu_model_runner: sample"] == 2
    assert reduced.stat().st_size < MAX_RECORD_BYTES


def test_a_server_without_a_profiler_is_refused() -> None:
    """vLLM has no such endpoint without `--profiler-config`."""
    with (
        stub([], b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n") as server,
        pytest.raises(ProfileError, match=r"vLLM refused /start_profile: .*404"),
    ):
        record._post(cast(Server, SimpleNamespace(url=server.url, log="vllm.log")), "start_profile")


def test_a_server_that_wrote_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="vLLM wrote no trace"):
        record._worker_trace(tmp_path / "traces")


def test_the_profiler_config_is_vllm_s(tmp_path: Path) -> None:
    """vLLM's own class accepts it, and no field is spelt wrongly."""
    from vllm.config import ProfilerConfig

    fields = json.loads(record.profiler_config(tmp_path, steps=3, skip=2))
    config = ProfilerConfig(**fields)
    assert (config.torch_profiler_dir, config.max_iterations, config.delay_iterations) == (
        str(tmp_path),
        3,
        2,
    )
    assert not config.should_profile_frontend
