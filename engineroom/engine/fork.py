"""Work in a fork of this process, while this one goes on."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from engineroom.kit.prctl import die_with_parent

T = TypeVar("T")


@contextmanager
def forked(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Start `work` in a fork. What is yielded waits for the result, which is pickled; it raises RuntimeError, with the
    fork's traceback, when `work` failed or the fork was killed.

    The fork computes with one thread, as OpenMP's do not come along. It ends with the block, and with this process.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run() -> None:
        die_with_parent()
        torch.set_num_threads(1)
        try:
            there.send((work(), ""))
        except Exception:
            there.send((None, traceback.format_exc()))

    def result() -> T:
        try:
            made, error = here.recv()
        except EOFError:
            process.join()
            raise RuntimeError(
                f"a process of this one ended with {process.exitcode}; was it killed?"
            ) from None
        if error:
            raise RuntimeError(error)
        return made

    process = context.Process(target=run, daemon=True)
    process.start()
    there.close()
    try:
        yield result
    finally:
        process.kill()
        process.join()
        here.close()
