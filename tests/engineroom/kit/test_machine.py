"""The machine card agrees with the system and honours limits."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engineroom.kit import cgroup, openmp, probe
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


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 1000 bytes of memory, 600 of them available, whose cgroup files the test writes."""
    monkeypatch.setattr(cgroup, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cgroup.psutil, "virtual_memory", lambda: SimpleNamespace(total=1000, available=600))
    return tmp_path


VERSION_2 = {"groups": "0::/pod/app", "limit": "cgroup/pod/memory.max", "used": "cgroup/pod/memory.current",
             "statistics": "cgroup/pod/memory.stat", "no limit": "max"}  # fmt: skip
VERSION_1 = {"groups": "7:pids:/\n4:cpu:/x\n3:memory:/docker/42", "limit": "cgroup/memory/memory.limit_in_bytes",
             "used": "cgroup/memory/memory.usage_in_bytes", "statistics": "cgroup/memory/memory.stat",
             "no limit": "9223372036854771712"}  # fmt: skip


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1], ids=["version 2", "version 1"])
def test_memory_limit_of_a_cgroup(cgroups: Path, files: dict[str, str]) -> None:
    """In version 1 the group's path is the host's, as in a container: its files are at the top."""
    write(cgroups, groups=files["groups"])
    assert cgroup.memory() == (1000, 600)
    statistics = "inactive_file 7\ntotal_inactive_file 100\n" if files is VERSION_1 else "inactive_file 100\n"
    write(cgroups, **{files["limit"]: "500", files["used"]: "300", files["statistics"]: statistics})
    assert cgroup.memory() == (500, 300)
    write(cgroups, **{files["used"]: "700"})
    assert cgroup.memory() == (500, 0)
    write(cgroups, **{files["limit"]: files["no limit"]})
    assert cgroup.memory() == (1000, 600)


@pytest.mark.parametrize(
    ("groups", "quota"),
    [
        ("0::/pod", lambda cores: {"cgroup/pod/cpu.max": f"{cores * 100000} 100000"}),
        (
            "2:cpu,cpuacct:/host/path",
            lambda cores: {
                "cgroup/cpu/cpu.cfs_quota_us": f"{cores * 50000:.0f}",
                "cgroup/cpu/cpu.cfs_period_us": "50000",
            },
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_core_quota_of_a_cgroup(
    cgroups: Path, groups: str, quota: Callable[[float], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quota below the number of cores decides, also for the threads of OpenMP; one of -1 or "max" is none."""
    monkeypatch.setattr(cgroup, "affinity", lambda: 8)
    write(cgroups, groups=groups)
    assert cgroup.cores() == 8
    for number, cores in ((1, 1), (4, 4), (16, 8)):
        write(cgroups, **quota(number))
        assert cgroup.cores() == cores
    write(cgroups, **quota(3))
    monkeypatch.setattr(os, "environ", {})
    openmp.apply()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    write(cgroups, **{"cgroup/pod/cpu.max": "max 100000", "cgroup/cpu/cpu.cfs_quota_us": "-1"})
    assert cgroup.cores() == 8


def test_vllm_of_the_wrong_kind_is_not_an_engine() -> None:
    gpu = probe.Gpu(name="NVIDIA H100", memory_gib=80, compute_capability="9.0", driver="580")
    assert probe.engines({"vllm": "0.32.0"}, [], "g++") == []
    assert "vllm" in probe.engines({"vllm": "0.32.0+cpu"}, [], "g++")
    assert "trtllm" not in probe.engines({"tensorrt-llm": "1.2.1"}, [], "g++")
    assert "trtllm" in probe.engines({"tensorrt-llm": "1.2.1"}, [gpu], "g++")
