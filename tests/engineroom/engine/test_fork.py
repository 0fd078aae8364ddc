"""Functions that run in a fork: their result, their errors, and that no fork outlives the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess

import psutil
import pytest
import torch

from engineroom.engine.fork import run_in_fork

OWNER = """
import time
from engineroom.engine.fork import run_in_fork

def work():
    print(__import__("os").getpid(), flush=True)
    time.sleep(300)

with run_in_fork(work) as result:
    result()
"""


def test_the_result_comes_back_from_another_process_with_one_thread() -> None:
    """OpenMP's threads exist in this process before the fork, and do not in the fork."""
    assert (torch.ones(2000, 2000) @ torch.ones(2000, 2000)).max() == 2000

    def work() -> tuple[int, float]:
        return os.getpid(), float((torch.ones(500, 500) @ torch.ones(500, 500)).sum())

    with run_in_fork(work) as result:
        pid, total = result()
    assert pid != os.getpid() and total == 500.0**3 and not psutil.pid_exists(pid)


def test_an_error_in_the_fork_is_raised_here() -> None:
    def work() -> None:
        raise OSError("No space left on device")

    with run_in_fork(work) as result, pytest.raises(RuntimeError, match="OSError: No space left on device"):
        result()


def test_a_killed_fork_is_an_error() -> None:
    with (
        run_in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL)) as result,
        pytest.raises(RuntimeError, match="ended with -9"),
    ):
        result()


def test_leaving_the_block_ends_the_fork() -> None:
    forks: list[BaseProcess] = []
    with pytest.raises(KeyboardInterrupt), run_in_fork(lambda: time.sleep(300)):
        forks += multiprocessing.active_children()
        raise KeyboardInterrupt
    assert len(forks) == 1 and not forks[0].is_alive()


def test_a_killed_owner_ends_the_fork() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        fork = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    assert fork.wait(60) is None and not fork.is_running()
