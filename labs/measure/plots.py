"""The plots of lesson 02."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from engineroom.load.stats import SLO, e2e, percentile, tpots, ttft
from engineroom.load.sweep import PROMISE, Point
from engineroom.load.trace import Trace
from labs.kit import show
from labs.kit.check import needs_number

COLORS = (show.BLUE, show.ORANGE, show.GREEN)
REPEAT = "Run the notebook again from the cell with `capacity`."


def latencies(traces: Sequence[Trace]) -> None:
    """Histograms of TTFT, TPOT and end-to-end latency, with median and 99th percentile."""
    series = {"TTFT": [*map(ttft, traces)], "TPOT": tpots(traces), "end to end": [*map(e2e, traces)]}
    alt: list[str] = []
    with show.picture(alt, 1, 3, size=(9, 2.8)) as (_, axes):
        for plot, (name, seconds), color in zip(axes, series.items(), COLORS, strict=True):
            values = [1000 * value for value in seconds]
            p50, (tail_name, tail) = percentile(values, 50), _tail(values)
            plot.hist(values, bins=20, color=color)
            plot.axvline(p50, color="black", linewidth=1.5, label=f"p50: {_ms(p50)}")
            plot.axvline(tail, color="black", linewidth=1.5, linestyle=":", label=f"{tail_name}: {_ms(tail)}")
            plot.set(xlabel=f"{name}, ms", ylabel="requests")
            plot.yaxis.get_major_locator().set_params(integer=True)
            plot.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
            alt.append(f"{name}: median {_ms(p50)} ms, {tail_name} {_ms(tail)} ms.")


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _tail(values: Sequence[float]) -> tuple[str, float]:
    """(name, value) of the 99th percentile, or of the greatest value where fewer than 100 have no such percentile."""
    return ("p99", percentile(values, 99)) if len(values) >= 100 else ("slowest", max(values))


def loops(runs: Mapping[str, Sequence[Trace]]) -> None:
    """TTFT over time for several runs: each kind of load shows another side of the same server."""
    alt: list[str] = []
    with show.picture(alt, size=(8.5, 3.2)) as (_, axes):
        for (name, traces), color, marker in zip(runs.items(), COLORS, "o^s", strict=False):
            start = min(trace.sent for trace in traces)
            times = [trace.sent - start for trace in traces]
            values = [1000 * ttft(trace) for trace in traces]
            axes.plot(times, values, marker, color=color, label=name, markersize=4)
            alt.append(f"{name}: median TTFT {percentile(values, 50):.0f} ms, greatest {max(values):.0f} ms.")
        axes.set(xlabel="sent, seconds after the start", ylabel="TTFT, ms", yscale="log")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def sweep(points: Sequence[Point], slo: SLO, best: float) -> None:
    """TTFT by offered rate, and the share of requests that met the SLO by offered rate.

    When no rate met the promise, or a rate did although a lower one did not, a sentence says so and what to do.
    """
    best = needs_number("02.max_rate", best)
    rates = [point.rate for point in points]
    shares = [100 * point.share(slo) for point in points]
    points_text = ", ".join(f"{share:.0f} % at {rate:.1f}" for rate, share in zip(rates, shares, strict=True))
    alt = f"Requests that met the SLO, by offered requests per second: {points_text}. Highest good rate {best:.1f}."
    with show.picture(alt, 1, 2, size=(9, 3.2)) as (_, (left, right)):
        ttfts = [[1000 * ttft(trace) for trace in point.traces] for point in points]
        left.plot(rates, [percentile(values, 50) for values in ttfts], "o-", color=show.BLUE, label="p50")
        left.plot(rates, [max(values) for values in ttfts], "o--", color=show.BLUE, label="slowest")
        left.axhline(1000 * slo.ttft, color=show.RED, label="SLO")
        left.set(xlabel="requests per second offered", ylabel="TTFT, ms", yscale="log")
        left.legend(frameon=False)
        right.plot(rates, shares, "o-", color=show.GREEN, label="requests within the SLO")
        right.axhline(100 * PROMISE, color=show.RED, linewidth=1, label="promise")
        if best > 0:
            right.axvline(best, color=show.ORANGE, linewidth=2, label="highest good rate")
        right.set(xlabel="requests per second offered", ylabel="%", ylim=(0, 105))
        right.legend(frameon=False, fontsize=8)
    good = [point.rate for point in points if point.share(slo) >= PROMISE]
    if not good:
        print(
            f"Not even {min(rates):.1f} requests per second met the objective for {PROMISE:.0%} of the requests. The "
            "objective is a multiple of the calm run's latencies, so either that run was quieter than this one or "
            f"something else uses this machine now. {REPEAT}"
        )
    elif missed := [rate for rate in rates if rate < max(good) and rate not in good]:
        print(
            f"{missed[0]:.1f} requests per second missed the objective, and {max(good):.1f} met it: something else "
            f"used this machine meanwhile. {REPEAT}"
        )


def in_flight(traces: Sequence[Trace], average: float) -> None:
    """Requests in flight over time, from raw timestamps, and the average that Little's law gives."""
    average = needs_number("02.little", average)
    start = min(trace.sent for trace in traces)
    arrivals = [(trace.sent - start, 1) for trace in traces]
    departures = [(trace.arrivals[-1] - start, -1) for trace in traces]
    changes = sorted(arrivals + departures)
    times = [0.0, *(time for time, _ in changes)]
    counts = [0, *accumulate(change for _, change in changes)]
    alt = f"Requests in flight over time, at most {max(counts)}; Little's law gives {average:.1f} on average."
    with show.picture(alt, size=(8.5, 2.8)) as (_, axes):
        axes.fill_between(times, counts, step="post", color=show.SKY, label="in flight, counted")
        axes.axhline(average, color=show.RED, linewidth=2, label="rate × time in the system")
        axes.set(xlabel="seconds", ylabel="requests")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
