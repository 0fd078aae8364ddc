"""OpenMP: how long a thread spins before it sleeps, and how many threads there are, for every process of our engine.

By default a waiting thread spins for milliseconds, and a busy neighbour on the same core makes a step several times
slower. With more OpenMP threads than cores it hardly spins at all, and a step waits for the system to wake a thread at
every matrix product. That happens in a server: the main thread loads the engine and another thread runs it, so there
are two pools of threads. 1,000 spins, a few microseconds, suit both cases (libgomp/env.c).

libgomp counts the cores that the scheduler allows and knows nothing of a cgroup's quota: in a container with 2 of 64
cores it starts 64 threads, which the quota then stops in turn. So the quota becomes OMP_NUM_THREADS.

libgomp reads the variables when it is loaded, that is when torch is imported. engineroom.engine sets them for programs
that import it first. A notebook may import torch first, so the programs that start its kernel set them too.
"""

from __future__ import annotations

import os

from engineroom.kit import cgroup

SETTINGS = {"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "active"}
LIBGOMP_DEFAULTS = {
    "GOMP_SPINCOUNT": "300000",
    "OMP_WAIT_POLICY": "",
}  # for other engines, in a fair comparison


def apply() -> None:
    """Set those of the variables that are not set yet, for this process and its children."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if (cores := cgroup.cores()) < cgroup.affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
