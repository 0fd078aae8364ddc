"""Run a function in a fork of this process, in parallel with it; compile.py uses it to compile two graphs at once.

ProcessPoolExecutor would pickle the decoder with all its weights, and wait for running work after a build has failed.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from engineroom.kit.prctl import die_with_parent

T = TypeVar("T")


@contextmanager
def run_in_fork(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Start `work` in a fork of this process; yields a function that waits for its result, which is pickled.

    That function raises RuntimeError, with the fork's traceback, when `work` failed or the fork was killed. The fork
    computes with one thread, since OpenMP's threads do not survive a fork. It is killed when the block ends, and when
    this process ends.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        die_with_parent()
        # a terminal sends SIGINT to both processes; the parent ends the fork
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        try:
            sender.send((work(), ""))
        except Exception:  # noqa: BLE001  # every error goes to the process that waits for the result
            sender.send((None, traceback.format_exc()))

    def result() -> T:
        try:
            value, error = receiver.recv()
        except EOFError:
            process.join()
            raise RuntimeError(
                f"a forked process ended with {process.exitcode} and no result; was it killed?"
            ) from None
        if error:
            raise RuntimeError(error)
        return value

    process = context.Process(target=run, daemon=True)
    process.start()
    sender.close()
    try:
        yield result
    finally:
        process.kill()
        process.join()
        receiver.close()
