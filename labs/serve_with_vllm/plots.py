"""The plots of lesson 01."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from engineroom.load.trace import Trace
from engineroom.metrics.prometheus import Metrics
from labs.kit import show
from labs.kit.check import needs_numbers


def tokens(arrivals: Sequence[float]) -> None:
    """One stream: when each token arrived, in seconds after sending, and the gaps between tokens."""
    arrivals = needs_numbers("01.streaming", arrivals)
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    alt = (
        f"{len(arrivals)} pieces of one stream on a time line: the first after {arrivals[0]:.2f} s, the last after "
        f"{arrivals[-1]:.2f} s. Below it, the gap before each further piece."
    )
    with show.picture(alt, 2, 1, size=(8, 3.6), height_ratios=(1, 2)) as (_, (line, bars)):
        line.eventplot([arrivals], colors=show.BLUE, linewidths=1.5)
        line.axvline(arrivals[0], color=show.ORANGE, linewidth=2)
        first = (arrivals[0], 1.62)  # above the other strokes, which end at 1.5
        line.annotate(" first token", first, color=show.RED, fontsize=9, annotation_clip=False)
        line.set(xlim=(0, None), yticks=[], xlabel="seconds after sending")
        bars.bar(range(2, len(arrivals) + 1), [1000 * gap for gap in gaps], color=show.BLUE)
        bars.set(xlabel="piece", ylabel="gap, ms")


def timeline(traces: Sequence[Trace], samples: Sequence[Metrics]) -> None:
    """Several requests: when each waited and when it got tokens (client), and how many ran together (vLLM)."""
    start = min(trace.sent for trace in traces)
    max_running = max(sample["num_requests_running"] for sample in samples)
    max_waiting = max(sample["num_requests_waiting"] for sample in samples)
    alt = (
        f"{len(traces)} requests, one line each: grey while it waits for its first token, a dot for each token. "
        f"Below, vLLM's gauges: at most {max_running:.0f} requests run together, at most {max_waiting:.0f} wait."
    )
    with show.picture(alt, 2, 1, size=(8.5, 5.2), height_ratios=(2, 1), sharex=True) as (_, (top, bottom)):
        for row, trace in enumerate(sorted(traces, key=lambda trace: trace.arrivals[-1]), 1):
            waiting = [trace.sent - start, trace.arrivals[0] - start]
            arrivals = [arrival - start for arrival in trace.arrivals]
            top.plot(waiting, [row, row], color=show.GREY, linewidth=2, label="before the first token")
            top.plot(arrivals, [row] * len(arrivals), ".", color=show.BLUE, markersize=3, label="tokens")
        handles, labels = top.get_legend_handles_labels()
        top.legend(handles[:2], labels[:2], ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
        top.set(ylabel="request", ylim=(0, len(traces) + 1))
        times = [sample.time - start for sample in samples]
        for state, color, style in (("running", show.GREEN, "-"), ("waiting", show.RED, "--")):
            counts = [sample[f"num_requests_{state}"] for sample in samples]
            bottom.step(times, counts, where="post", color=color, linestyle=style, label=state)
        bottom.set(xlabel="seconds", ylabel="requests (vLLM)", xlim=(0, None), ylim=(0, None))
        bottom.legend(loc="upper right", frameon=False)
