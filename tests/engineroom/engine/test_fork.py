"""Work in a fork: what it gives, how it fails, and that it never outlives its owner."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from engineroom.engine.forked import forked

OWNER = """
import time
from engineroom.engine.forked import forked

def work():
    print(__import__("os").getpid(), flush=True)
    time.sleep(300)

with forked(work) as result:
    result()
"""


def test_the_result_comes_back_from_another_process_with_one_thread() -> None:
    """OpenMP's threads are here before, and would be missed in the fork."""
    assert (torch.ones(2000, 2000) @ torch.ones(2000, 2000)).max() == 2000

    def work() -> tuple[int, float]:
        return os.getpid(), float((torch.ones(500, 500) @ torch.ones(500, 500)).sum())

    with forked(work) as result:
        process, total = result()
    assert process != os.getpid() and total == 500.0**3 and not psutil.pid_exists(process)


def test_its_error_is_ours() -> None:
    def work() -> None:
        raise OSError("No space left on device")

    with forked(work) as result, pytest.raises(RuntimeError, match="OSError: No space left on device"):
        result()


def test_a_killed_fork_is_told() -> None:
    with (
        forked(lambda: os.kill(os.getpid(), signal.SIGKILL)) as result,
        pytest.raises(RuntimeError, match="ended with -9"),
    ):
        result()


def test_leaving_the_block_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt), forked(lambda: time.sleep(300)):
        [fork] = multiprocessing.active_children()
        raise KeyboardInterrupt
    assert not fork.is_alive()


def test_a_killed_owner_takes_it_along() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        fork = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    assert fork.wait(60) is None and not fork.is_running()
