"""Pictures of a right answer in any style, and of one that is not there: one sentence."""

from __future__ import annotations

import pytest

from engineroom import load
from labs.kit.check import Unfinished
from labs.measure import plots as measure
from labs.measure.examples import GOAL, RUN, SWEEPS, sweep_of
from labs.preflight import draw_memory
from labs.serve_with_vllm import plots as serve
from tests.labs.lessons.test_sabotage import right_answers

POINTS, _ = next(iter(SWEEPS.values()))
ODD_NUMBERS = [..., None, "5", [5.0], float("nan"), float("inf"), lambda: None, {}]
ODD_LISTS = [..., None, [], "0.1", [None], ["0.1"], [0.1, float("nan")], 5, iter([])]


@pytest.mark.parametrize("style", range(len(right_answers("00.weights"))))
def test_weights(style: int, capsys: pytest.CaptureFixture) -> None:
    (weight_gb,) = right_answers("00.weights")[style]
    draw_memory(
        {"8B": weight_gb(8.03e9, 2), "70B": weight_gb(70.6e9, 0.5)}, {"this machine": 16.5, "H100": 80}
    )
    assert "8B (16.06 GB) fits into this machine, H100" in capsys.readouterr().out


@pytest.mark.parametrize("style", range(len(right_answers("01.streaming"))))
def test_times(style: int, capsys: pytest.CaptureFixture) -> None:
    serve.tokens(right_answers("01.streaming")[style][0])
    assert "7 pieces of one stream on a time line: the first after 0.05 s" in capsys.readouterr().out


@pytest.mark.parametrize("style", range(len(right_answers("02.max_rate"))))
def test_rates(style: int, capsys: pytest.CaptureFixture) -> None:
    (highest_rate,) = right_answers("02.max_rate")[style]
    measure.sweep(POINTS, GOAL, highest_rate(POINTS, GOAL))
    assert "Highest good rate 4.3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({1.0: 100, 2.0: 95, 3.0: 50}, ""),
        ({1.0: 100, 2.0: 90, 3.0: 50, 4.0: 10}, ""),
        ({1.0: 60, 2.0: 20}, "Not even 1.0 requests per second met the objective"),
        ({1.0: 100, 2.0: 50, 3.0: 95}, "2.0 requests per second missed the objective, and 3.0 met it"),
        ({3.0: 95, 1.0: 40, 2.0: 100}, "1.0 requests per second missed the objective, and 3.0 met it"),
    ],
)
def test_a_sweep_that_other_programs_disturbed_says_so(
    shares: dict[float, int], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    measure.sweep(sweep_of(shares), GOAL, 1.0)
    printed = capsys.readouterr().out
    assert sentence in printed
    assert (measure.REPEAT in printed) == bool(sentence)


@pytest.mark.parametrize("style", range(len(right_answers("02.little"))))
def test_requests_in_flight(style: int, capsys: pytest.CaptureFixture) -> None:
    in_flight, _ = right_answers("02.little")[style]
    measure.in_flight(RUN, in_flight(RUN))
    assert f"gives {sum(map(load.e2e, RUN)) / 4.1:.1f} on average" in capsys.readouterr().out


@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_no_number(number: object) -> None:
    with pytest.raises(Unfinished, match=r"00\.weights.*finish that first"):
        draw_memory({"8B": number}, {"H100": 80})
    with pytest.raises(Unfinished, match=r"02\.max_rate.*finish that first"):
        measure.sweep(POINTS, GOAL, number)
    with pytest.raises(Unfinished, match=r"02\.little.*finish that first"):
        measure.in_flight(RUN, number)


@pytest.mark.parametrize("times", ODD_LISTS)
def test_no_times(times: object) -> None:
    with pytest.raises(Unfinished, match=r"01\.streaming.*finish that first"):
        serve.tokens(times)
