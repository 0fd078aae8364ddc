"""The pictures of lesson 01."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from engineroom.load.client import Trace
from engineroom.metrics.prometheus import Metrics
from labs.kit import show
from labs.kit.check import needs


def tokens(arrivals: Sequence[float]) -> None:
    """One stream: when each token arrived, in seconds after sending, and the gaps between tokens."""
    needs("01.streaming", arrivals)
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    alt = (f"{len(arrivals)} tokens of one stream on a time line: the first after {arrivals[0]:.2f} s, the last "
           f"after {arrivals[-1]:.2f} s; below, the gap before each further token.")  # fmt: skip
    with show.picture(alt, 2, 1, size=(8, 3.6), height_ratios=(1, 2)) as (_, (line, bars)):
        line.eventplot([arrivals], colors=show.BLUE, linewidths=1.5)
        line.axvline(arrivals[0], color=show.ORANGE, linewidth=2)
        line.annotate(" first token", (arrivals[0], 1.32), color=show.RED, fontsize=9)
        line.set(xlim=(0, None), yticks=[], xlabel="seconds after sending")
        bars.bar(range(2, len(arrivals) + 1), [1000 * gap for gap in gaps], color=show.BLUE)
        bars.set(xlabel="token", ylabel="gap, ms")


def timeline(traces: Sequence[Trace], samples: Sequence[Metrics]) -> None:
    """Many requests: who waited and who got tokens when (client), and how many ran together (vLLM's counters)."""
    zero = min(trace.sent for trace in traces)
    most = max(sample["num_requests_running"] for sample in samples)
    queue = max(sample["num_requests_waiting"] for sample in samples)
    alt = (
        f"{len(traces)} requests, one line each: grey while waiting for the first token, a dot for each token. "
        f"Below, vLLM's counters: at most {most:.0f} requests running together, at most {queue:.0f} waiting."
    )
    with show.picture(alt, 2, 1, size=(8.5, 5.2), height_ratios=(2, 1), sharex=True) as (_, (top, bottom)):
        for row, trace in enumerate(sorted(traces, key=lambda one: one.arrivals[0]), 1):
            top.hlines(row, trace.sent - zero, trace.arrivals[0] - zero, color=show.GREY, linewidth=2)
            times = [arrival - zero for arrival in trace.arrivals]
            top.plot(times, [row] * len(times), ".", color=show.BLUE, markersize=3)
        top.set(ylabel="request", ylim=(0, len(traces) + 1))
        times = [sample.time - zero for sample in samples]
        for name, color, style in (("running", show.GREEN, "-"), ("waiting", show.RED, "--")):
            values = [sample[f"num_requests_{name}"] for sample in samples]
            bottom.step(times, values, where="post", color=color, linestyle=style, label=name)
        bottom.set(xlabel="seconds", ylabel="requests (vLLM)", xlim=(0, None), ylim=(0, None))
        bottom.legend(loc="upper right", frameon=False)
