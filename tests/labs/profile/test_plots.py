"""The pictures of lesson 11 say what they show, and leave out what other programs disturbed."""

from __future__ import annotations

import re

import pytest

from engineroom.profile.ceilings import Ceilings
from engineroom.profile.counts import Step
from labs.kit.check import Unfinished
from labs.profile import plots
from labs.profile.checks import SMALL
from labs.profile.runs import MeasuredStep, ProfilerCost
from labs.profile.spans import Span
from tests.labs.lessons.answers_11 import RIGHT, profiled

CEILINGS = Ceilings("cpu", "a processor", 2, 1000, 20e9, {"float32": 400e9}, 2e-6)
STEPS = [MeasuredStep(f"decode, batch {n}", Step.generation([9] * n), 0.01, 1.0) for n in (1, 4)]


def test_the_roof_and_its_points(capsys: pytest.CaptureFixture) -> None:
    plots.roofline(CEILINGS, "float32", {"decode, batch 1": (0.5, 3e9), "prefill": (300, 390e9)})
    text = capsys.readouterr().out
    assert "read at 20.0 GB/s" in text and "400 billion operations per second" in text
    assert "decode, batch 1: 0.5 operations per byte, 3 billion per second." in text


@pytest.mark.parametrize("style", range(len(RIGHT["11.counts"])))
def test_points_of_a_right_answer_in_any_style(style: int, capsys: pytest.CaptureFixture) -> None:
    step_operations, step_bytes = RIGHT["11.counts"][style]
    operations, num_bytes = step_operations(SMALL, 4, 64), step_bytes(SMALL, 4, 64, 2)
    plots.roofline(CEILINGS, "float32", {"decode": (operations / num_bytes, operations / 0.25)})
    assert re.search(
        r"decode: [\d.]+ operations per byte, 0\.\d+ billion per second", capsys.readouterr().out
    )


@pytest.mark.parametrize("style", range(len(RIGHT["11.roof"])))
def test_a_share_of_a_right_answer_in_any_style(style: int, capsys: pytest.CaptureFixture) -> None:
    _, share_of_roof = RIGHT["11.roof"][style]
    plots.utilisation(STEPS[:1], [share_of_roof(3e9, 7e9, 0.83, 2e10, 9e11)])
    assert "share of the roof 42%" in capsys.readouterr().out


def test_utilisation_beside_the_share_of_the_roof(capsys: pytest.CaptureFixture) -> None:
    plots.utilisation(STEPS, [0.03, 1.2])
    assert "decode, batch 1: cores busy 100%, share of the roof 3%." in capsys.readouterr().out
    for unfinished in (None, ...):
        with pytest.raises(Unfinished, match=r"11\.roof.*finish that first"):
            plots.utilisation(STEPS, [unfinished, 0.5])


def test_a_timeline_shows_the_quickest_steps_of_the_last_third() -> None:
    durations = [1, 1, 1, 1, 1, 1, 9, 3, 2, 7]
    begins = [sum(durations[:n]) for n in range(len(durations))]
    spans = [Span("step", begin, begin + duration) for begin, duration in zip(begins, durations, strict=True)]
    spans += [Span("read", begin, begin + 0.5) for begin in begins]
    shown = plots._quickest_steps(spans, 2)
    assert sorted({span.begin for span in shown}) == [begins[7], begins[8]]
    assert len(shown) == 4


@pytest.mark.parametrize("num_steps", range(3, 30))
def test_a_timeline_needs_one_step_more_than_it_shows(num_steps: int) -> None:
    spans = [Span("step", 10 * n, 10 * n + 8) for n in range(num_steps)]
    assert len(plots._quickest_steps(spans, 2)) == 2


def test_a_timeline_names_what_it_shows(capsys: pytest.CaptureFixture) -> None:
    plots.timeline(profiled("detokenize").spans, steps=2)
    text = capsys.readouterr().out
    assert (
        "Timeline of 2 steps: " in text and "detokenize 6 times" in text and "cache_layout 16 times" in text
    )


def test_times_of_two_runs(capsys: pytest.CaptureFixture) -> None:
    plots.times({"before": profiled("cache_layout").spans, "after": profiled().spans})
    text = capsys.readouterr().out
    assert "before: cache_layout takes" in text and "after: forward takes" in text


def test_the_cost_of_a_profiler(capsys: pytest.CaptureFixture) -> None:
    plots.profiler_costs({"sampler": ProfilerCost([2e-3] * 9 + [9e-3], [3e-3] * 9 + [4e-3], 500)})
    text = capsys.readouterr().out
    assert "sampler, without: a tenth of 10 runs took less than 2,000 microseconds." in text
    assert "sampler, with profiler: a tenth of 10 runs took less than 3,000 microseconds." in text
