"""Ranges of the engine: none while no profiler runs, named ones while one does, nested as the calls are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.request import RequestError
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.span import span, spanned, spans

PROMPTS = [[5, 6, 7], [8, 9]]


class Recorder:
    """The ranges that were entered and left, with how many were open around each."""

    def __init__(self) -> None:
        self.names: list[tuple[int, str]] = []
        self.depth = 0

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        self.names.append((self.depth, name))
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


def test_off_an_engine_creates_no_range(engine: EngineDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the profiler's nor any other: every call returns the same context."""

    def refuse(*_: object) -> None:
        raise AssertionError("a range was created while no profiler runs")

    monkeypatch.setattr(torch.profiler.record_function, "__init__", refuse)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", refuse)
    assert span("step") is span("sample")
    executor = Executor(engine)
    assert len(executor.generate(PROMPTS, SamplingParams(max_tokens=4))) == len(PROMPTS)


def test_on_each_step_is_a_range_with_its_parts_inside(engine: EngineDir) -> None:
    recorder, executor = Recorder(), Executor(engine)
    with spans(recorder.range):
        executor.generate(PROMPTS, SamplingParams(max_tokens=4))
    assert recorder.depth == 0
    assert recorder.names.count((0, "step")) == executor.num_steps == 4
    counts = {name: recorder.names.count(name) for name in recorder.names}
    assert counts == {
        (0, "step"): 4, (1, "schedule"): 4, (1, "read"): 4,
        (1, "context"): 1, (1, "generation"): 3, (2, "sample"): 4,
    }  # fmt: skip


def test_a_span_ends_with_an_exception_and_so_do_the_spans_of_a_profiler() -> None:
    recorder = Recorder()

    @spanned("fails")
    def fail() -> None:
        raise RequestError("no")

    with pytest.raises(RequestError), spans(recorder.range):
        fail()
    assert recorder.depth == 0
    assert recorder.names == [(0, "fails")]
    assert span("later") is span("off")


def test_an_inner_profiler_gives_way_to_the_outer() -> None:
    outer, inner = Recorder(), Recorder()
    with spans(outer.range):
        with spans(inner.range), span("inner"):
            pass
        with span("outer"):
            pass
    assert (inner.names, outer.names) == ([(0, "inner")], [(0, "outer")])


def test_a_spanned_function_keeps_its_name_its_result_and_its_arguments() -> None:
    @spanned("add")
    def add(left: int, *, right: int) -> int:
        """A sum."""
        return left + right

    assert (add(1, right=2), add.__name__, add.__doc__) == (3, "add", "A sum.")
