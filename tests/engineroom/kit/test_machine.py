"""The machine card agrees with the system and honours limits."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from engineroom.kit import probe
from engineroom.kit.machine import Machine, machine

SMI = """#!/bin/sh
case "$1" in
  --query-gpu=*) echo "NVIDIA H200, 143771, 9.0, 580.159.03"; echo "NVIDIA GB10, [N/A], 12.1, 580.1" ;;
  -q) echo "CUDA Version                              : 13.0" ;;
esac
"""


@pytest.fixture
def card() -> Machine:
    return machine()


def test_agrees_with_the_system(card: Machine) -> None:
    nproc = "env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc"  # which would heed them
    assert card.cores == int(os.popen(nproc).read()) or card.cores < os.cpu_count()
    assert card.python == platform.python_version()
    assert card.memory_available_gib <= card.memory_gib
    assert card.versions["torch"].startswith("2.")
    assert bool(card.gpus) == bool(shutil.which("nvidia-smi"))


def test_shown_and_kept(card: Machine) -> None:
    text, page = str(card), card._repr_html_()
    for label, value in card.table():
        assert label in text and value in text and label in page
    assert Machine.model_validate_json(card.model_dump_json()) == card
    assert socket.gethostname() not in str(card.short())


def test_gpus_as_nvidia_smi_reports_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text(SMI)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    card = machine()
    first, second = card.gpus
    assert (first.name, first.memory_gib, first.compute_capability) == ("NVIDIA H200", 140.4, "9.0")
    assert second.memory_gib is None and "shared" in str(second)
    assert card.cuda == "13.0" and card.gpu_counters in (True, False)
    assert card.short()["gpus"] == ["NVIDIA H200", "NVIDIA GB10"]
    assert "Profiler counters" in str(card)


def test_broken_nvidia_smi_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert probe.gpus() == []


def test_cgroup_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "CGROUP", tmp_path)
    memory = SimpleNamespace(total=1000, available=600)
    monkeypatch.setattr(probe.psutil, "virtual_memory", lambda: memory)
    assert probe.memory() == (1000, 600)
    for name, text in [
        ("memory.max", "500"),
        ("memory.current", "300"),
        ("memory.stat", "inactive_file 100\n"),
    ]:
        (tmp_path / name).write_text(text)
    assert probe.memory() == (500, 300)
    memory.available = 200
    assert probe.memory() == (500, 200)
    (tmp_path / "memory.max").write_text("max")
    assert probe.memory() == (1000, 200)
    (tmp_path / "cpu.max").write_text("150000 100000")
    assert probe.cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000")
    assert probe.cores() == len(os.sched_getaffinity(0))


def test_vllm_of_the_wrong_kind_is_not_an_engine() -> None:
    gpu = probe.Gpu(name="NVIDIA H100", memory_gib=80, compute_capability="9.0", driver="580")
    assert probe.engines({"vllm": "0.32.0"}, [], "g++") == []
    assert "vllm" in probe.engines({"vllm": "0.32.0+cpu"}, [], "g++")
    assert "trtllm" not in probe.engines({"tensorrt-llm": "1.2.1"}, [], "g++")
    assert "trtllm" in probe.engines({"tensorrt-llm": "1.2.1"}, [gpu], "g++")
