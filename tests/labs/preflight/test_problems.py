"""Each problem of a machine is named with its remedy."""

from __future__ import annotations

import pytest

from engineroom.kit.machine import Machine, machine
from labs.preflight import problems

GOOD = {
    "cores": 4,
    "memory_available_gib": 16,
    "disk_free_gib": 50,
    "shm_gib": 1,
    "compiler": "/usr/bin/g++",
    "isa": ["avx2"],
    "engines": ["vllm"],
    "gpu_counters": None,
}


@pytest.fixture
def good_machine() -> Machine:
    return machine().model_copy(update=GOOD)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cores": 1}, "Only 1 core"),
        ({"memory_available_gib": 1.5}, "Only 1.5 GiB of memory"),
        ({"disk_free_gib": 0.1}, "Only 0.1 GiB of disk"),
        ({"shm_gib": 0.1}, "--shm-size"),
        ({"compiler": None}, "apt-get install g++"),
        ({"isa": [], "os": "Linux, x86_64", "gpus": []}, "AVX2"),
        ({"engines": []}, "No engine"),
        ({"gpu_counters": False}, "NVreg_RestrictProfilingToAdminUsers=0"),
    ],
)
def test_problem_has_its_remedy(good_machine: Machine, change: dict, text: str) -> None:
    assert problems(good_machine) == []
    [problem] = problems(good_machine.model_copy(update=change))
    assert text in problem
