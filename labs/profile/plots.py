"""The plots of lesson 11."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from engineroom.profile.ceilings import Ceilings
from engineroom.profile.roofline import Roof
from labs.kit import show
from labs.kit.check import needs_number
from labs.profile.runs import MeasuredStep, ProfilerCost, undisturbed
from labs.profile.spans import Span, calls, parents, self_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INTENSITIES = (0.1, 1000.0)  # operations per byte: the axis
COLOURS = (show.BLUE, show.ORANGE, show.GREEN, show.PURPLE, show.RED, show.SKY)
NAME_COLOURS = {
    "forward": show.BLUE,
    "choose_token": show.ORANGE,
    "cache_layout": show.PURPLE,
    "detokenize": show.GREEN,
    "sample": show.SKY,
}
FEW_SPANS = 250  # more than that are too small to see
VISIBLE = 0.003  # of the axis: a bar of this width


def roofline(ceilings: Ceilings, dtype: str, points: Mapping[str, tuple[float, float]] | None = None) -> None:
    """The roof for products in `dtype`, and points below it: name -> (operations per byte, operations per second)."""
    alt = [
        f"Roofline of {ceilings.device_name}: memory is read at {ceilings.read_bytes_per_s / 1e9:.1f} GB/s, and "
        f"products in {dtype} reach {ceilings.operations_per_s[dtype] / 1e9:.0f} billion operations per second."
    ]
    roof = Roof.of(ceilings, dtype)
    with show.picture(alt, size=(8, 4)) as (_, axes):
        ridge = roof.ridge_intensity
        low, high = min(INTENSITIES[0], ridge / 4), max(INTENSITIES[1], ridge * 4)
        axes.plot([low, ridge], [roof.attainable_operations_per_s(low) / 1e9, roof.operations_per_s / 1e9],
                  color=show.ORANGE, linewidth=2.5, label="memory binds")  # fmt: skip
        axes.plot([ridge, high], [roof.operations_per_s / 1e9] * 2,
                  color=show.BLUE, linewidth=2.5, label="the matrix rate binds")  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="10⁹ operations per second")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        for colour, (name, (intensity, rate)) in zip(
            COLOURS[2:] + COLOURS, (points or {}).items(), strict=False
        ):
            intensity, rate = needs_number("11.counts", intensity), needs_number("11.counts", rate)
            axes.plot(intensity, rate / 1e9, "o", color=colour, markersize=8, label=name)
            axes.vlines(
                intensity,
                rate / 1e9,
                roof.attainable_operations_per_s(intensity) / 1e9,
                color=colour,
                linestyle=":",
            )
            alt.append(f"{name}: {intensity:.3g} operations per byte, {rate / 1e9:.3g} billion per second.")
        axes.legend(loc="lower right", frameon=False, fontsize=9)


def utilisation(steps: Sequence[MeasuredStep], shares: Sequence[float]) -> None:
    """How busy the cores were in each step, beside the share of the roof that the step reached."""
    alt: list[str] = []
    with show.picture(alt, size=(8, 0.75 * len(steps) + 1.2)) as (_, axes):
        for row, (step, value) in enumerate(zip(steps, shares, strict=True)):
            share = needs_number("11.roof", value)
            for offset, bar, colour in ((-0.19, step.utilisation, show.SKY), (0.19, share, show.ORANGE)):
                bars = axes.barh(row + offset, 100 * bar, 0.36, color=colour)
                axes.bar_label(bars, [f"{100 * bar:.0f} %"], padding=4)
            alt.append(f"{step.name}: cores busy {step.utilisation:.0%}, share of the roof {share:.0%}.")
        axes.set_yticks(range(len(steps)), [step.name for step in steps])
        axes.set(xlabel="per cent", xlim=(0, 100 * 1.12 * max(1, *map(float, shares))))
        axes.invert_yaxis()
        entries = {"cores busy": show.SKY, "share of the roof": show.ORANGE}
        _legend(axes, entries)


def timeline(spans: Sequence[Span], steps: int = 3) -> None:
    """The spans of a few undisturbed steps, an outer one above those within it, on a common axis of time."""
    alt: list[str] = []
    shown = _quickest_steps(spans, steps)
    origin = min(span.begin for span in shown)
    depths = _depths(shown)
    names = list(dict.fromkeys(span.name for span in sorted(shown, key=lambda span: span.begin)))
    colours = {name: NAME_COLOURS.get(name, show.GREY) for name in names}
    with show.picture(alt, size=(9, 0.5 * (max(depths) + 1) + 1.6)) as (_, axes):
        extent = max(span.end for span in shown) - origin
        for span, depth in zip(shown, depths, strict=True):
            start, width = (span.begin - origin) / 1000, span.duration / 1000
            edge = 0.4 if span.duration > VISIBLE * extent else 0  # an edge would cover a thin bar
            axes.barh(
                depth, width, 0.86, left=start, color=colours[span.name], edgecolor="white", linewidth=edge
            )
        _write_names(axes, shown, depths, origin)
        axes.set(xlabel="milliseconds", yticks=[], xlim=(0, None))
        axes.invert_yaxis()
        axes.grid(visible=False)
        _legend(axes, {name: colour for name, colour in colours.items() if colour != show.GREY})
        count = calls(shown)
        alt.append(
            f"Timeline of {steps} steps: " + ", ".join(f"{name} {count[name]} times" for name in names) + "."
        )


def times(runs: Mapping[str, Sequence[Span]]) -> None:
    """The self time of each name as a share of all, with its calls, a panel for each run, on the same axes."""
    alt: list[str] = []
    names = sorted(
        {span.name for spans in runs.values() for span in spans},
        key=lambda name: -max(self_times(spans).get(name, 0) for spans in runs.values()),
    )
    size = (4.5 * len(runs) + 0.5, 0.36 * len(names) + 1.2)
    options = {"sharex": True, "sharey": True, "squeeze": False}
    with show.picture(alt, 1, len(runs), size=size, **options) as (_, panels):
        for (title, spans), axes in zip(runs.items(), panels[0], strict=True):
            own, count = self_times(spans), calls(spans)
            shares = [100 * own.get(name, 0) / sum(own.values()) for name in names]
            bars = axes.barh(names, shares, color=[NAME_COLOURS.get(name, show.GREY) for name in names])
            labels = [f"{share:.1f} %, {count[name]:,} ×" for name, share in zip(names, shares, strict=True)]
            axes.bar_label(bars, labels, padding=4, fontsize=9)
            axes.set_title(title, loc="left", fontsize=10)
            axes.set(xlabel="per cent of the time, and calls", xlim=(0, 140), xticks=range(0, 101, 20))
            largest = max(zip(shares, names, strict=True))
            alt.append(f"{title}: {largest[1]} takes {largest[0]:.0f} % of the time by itself.")
        panels[0][0].invert_yaxis()


def profiler_costs(costs: Mapping[str, ProfilerCost]) -> None:
    """Each run without and with the profiler as a dot; a tenth of the runs are quicker than the bar."""
    from matplotlib.ticker import LogLocator, NullFormatter

    alt: list[str] = []
    rows = [
        (f"{name}, {what}", 1e6 * np.array(seconds), colour)
        for name, cost in costs.items()
        for what, seconds, colour in (
            ("without", cost.without, show.GREEN),
            ("with profiler", cost.with_profiler, show.ORANGE),
        )
    ]
    with show.picture(alt, size=(8, 0.5 * len(rows) + 1.0)) as (_, axes):
        for row, (name, microseconds, colour) in enumerate(rows):
            bar = undisturbed(microseconds.tolist())
            axes.plot(microseconds, [row] * len(microseconds), "o", color=colour, alpha=0.4, markersize=5)
            axes.vlines(bar, row - 0.3, row + 0.3, color=colour, linewidth=3)
            axes.annotate(
                f"{bar:,.0f} ",
                (bar, row),
                (-3, 0),
                textcoords="offset points",
                ha="right",
                va="center",
            )
            alt.append(f"{name}: a tenth of {len(microseconds)} runs took less than {bar:,.0f} microseconds.")
        axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
        axes.set(xlabel="microseconds", xscale="log", ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlim(left=0.5 * min(microseconds.min() for _, microseconds, _ in rows))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.xaxis.set_minor_formatter(NullFormatter())


def _quickest_steps(spans: Sequence[Span], steps: int) -> list[Span]:
    """The spans of `steps` consecutive steps near the end, where answers are long, up to the begin of the next one.

    Of the last third they are those that took the shortest time: other programs disturbed them least.
    """
    begins = sorted(span.begin for span in spans if span.name == "step")
    begins = begins[min(len(begins) * 2 // 3, len(begins) - steps - 1) :]
    windows = list(zip(begins, begins[steps:], strict=False))
    first, end = min(windows, key=lambda window: window[1] - window[0])
    shown = [span for span in spans if first <= span.begin and span.end <= end]
    return sorted(shown, key=lambda span: -span.duration)[:FEW_SPANS]


def _depths(spans: Sequence[Span]) -> list[int]:
    around = parents(spans)

    def depth(index: int) -> int:
        parent = around[index]
        return 0 if parent is None else 1 + depth(parent)

    return [depth(index) for index in range(len(spans))]


def _write_names(axes: Axes, spans: Sequence[Span], depths: Sequence[int], origin: float) -> None:
    """Write a span's name into its bar where it is wide enough."""
    extent = max(span.end for span in spans) - origin
    for span, depth in zip(spans, depths, strict=True):
        if span.duration > 0.014 * len(span.name) * extent:
            middle = ((span.begin + span.end) / 2 - origin) / 1000
            axes.text(middle, depth, span.name, ha="center", va="center", color="white", fontsize=8)


def _legend(axes: Axes, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(facecolor=colour) for colour in colours.values()]
    axes.legend(
        handles, list(colours), loc="lower left", bbox_to_anchor=(0, 1), ncols=len(colours) or 1, frameon=False,
        fontsize=9,
    )  # fmt: skip
