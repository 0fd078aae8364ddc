"""The dashboard in a notebook, without Prometheus or Grafana: the panels of engineroom/metrics, drawn from a history.

with record_metrics(triton.metrics, openai=f"{frontend.url}/metrics") as history:
    ...  # the load
dashboard.draw(history)
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engineroom.metrics.history import HistoryError, MetricsHistory
from engineroom.metrics.panels import JOBS, PANELS, ROWS, UNITS, Panel, Query
from labs.kit import show

JOB_COLORS = dict(zip(JOBS, (show.GREEN, show.BLUE, show.ORANGE, show.PURPLE), strict=True))
MODEL_COLORS = (show.BLUE, show.ORANGE, show.GREEN, show.RED, show.PURPLE)
MAX_POINTS = 200  # of a line


@dataclass
class Line:
    """One line of a panel: its values at Unix times in seconds. `index` is its place among the lines of the query."""

    query: Query
    index: int
    legend: str
    times: list[float]
    values: list[float]

    @property
    def is_per_model(self) -> bool:
        return "{{" in self.query.legend


def draw(history: MetricsHistory, window: float = 5) -> None:
    """Draw the panels of the recorded servers, one line for each legend; rates are over `window` seconds.

    Raises HistoryError for fewer than two scrapes.
    """
    jobs = [job for job in history.addresses if len(history.times(job)) > 1]
    if not jobs:
        raise HistoryError("There are fewer than two scrapes. Record for longer than the interval.")
    start = min(history.times(job)[0] for job in jobs)
    alt = [f"The dashboard of {', '.join(jobs)}, {len(PANELS)} panels."]
    num_rows, num_columns = len(ROWS), max(map(len, ROWS.values()))
    size = (4 * num_columns, 2.3 * num_rows)
    with show.picture(alt, num_rows, num_columns, size=size, sharex=True) as (_, grid):
        for axes, panel in zip(grid.flat, PANELS, strict=True):
            lines = [line for query in panel.queries for line in query_lines(query, history, window)]
            no_data = "" if lines else reason_for_no_data(panel, jobs)
            _draw_panel(axes, panel, lines, start, no_data)
            maxima = [f"{line.legend} at most {max(line.values):.3g}" for line in lines]
            alt.append(
                f"{panel.title}, {UNITS[panel.unit]}: {', '.join(maxima) or ' '.join(no_data.split())}."
            )
        for axes in grid[-1]:
            axes.set_xlabel("seconds")


def query_lines(query: Query, history: MetricsHistory, window: float) -> list[Line]:
    """The lines of a query in the order of their legends, each with a point at up to MAX_POINTS scrapes.

    A scrape at which the query has no finite value gives no point.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    scrape_times = history.times(query.job)
    for time in scrape_times[:: len(scrape_times) // MAX_POINTS + 1]:
        values = query.expression.evaluate(history.series, query.job, window, time)
        for label, value in values.items():
            if math.isfinite(value):
                points.setdefault(re.sub(r"{{\w+}}", label, query.legend), []).append((time, value))
    lines = []
    for index, legend in enumerate(sorted(points)):
        times, values = zip(*points[legend], strict=True)
        lines.append(Line(query, index, legend, list(times), list(values)))
    return lines


def reason_for_no_data(panel: Panel, jobs: Sequence[str]) -> str:
    """Why a panel without a line has none, in lines of a few words. `jobs`: the servers that were recorded."""
    recorded = [job for job in panel.jobs if job in jobs]
    if not recorded:
        return f"no data: published by\n{' and '.join(panel.jobs)},\nwhich this recording does not contain"
    return f"no data: {' and '.join(recorded)}\ncounted nothing of this kind"


def _draw_panel(axes: Any, panel: Panel, lines: list[Line], start: float, no_data: str) -> None:
    from matplotlib.ticker import EngFormatter  # slow to import

    for line in lines:
        layer = line.index if line.is_per_model else JOBS.index(line.query.job)
        model_color = MODEL_COLORS[line.index % len(MODEL_COLORS)]
        axes.plot(
            [time - start for time in line.times],
            line.values,
            ":" if line.legend.endswith("p50") else "-",
            color=model_color if line.is_per_model else JOB_COLORS[line.query.job],
            label=line.legend,
            linewidth=max(1, 2.8 - 0.6 * layer),  # a later line is thinner: equal lines all stay visible
        )
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.text(0.5, 0.5, no_data, transform=axes.transAxes, ha="center", va="center", fontsize=8)
    axes.set_ylabel(UNITS[panel.unit], fontsize=8)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # space for the legend
    axes.tick_params(labelsize=8)
    if panel.unit == "s":
        axes.yaxis.set_major_formatter(EngFormatter(unit="s"))
    if no_data:
        axes.set_yticks([])
    else:
        axes.legend(fontsize=6.5, frameon=False, ncols=2, loc="upper left")
