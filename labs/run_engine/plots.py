"""The plots of lesson 06."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from engineroom.kit.record import Record
from labs.kit import show
from labs.kit.replay import Replay

LIGHT_GREY = "#D9D9D9"
WORK_COLORS = {"waits": LIGHT_GREY, "context": show.ORANGE, "generation": show.BLUE}


def steps(replay: Replay) -> None:
    """What each request did in each step, one row for each request; below, how many were computed in the step."""
    num_requests, num_steps = len(replay.requests), len(replay.steps)
    alt = (
        f"{num_requests} requests over {num_steps} steps. A row shows when a request waited, computed its prompt and "
        f"got its tokens; below, how many were computed in each step, {replay.largest_batch} at most."
    )
    with show.picture(alt, 2, 1, size=(8.5, 4.6), height_ratios=(2, 1), sharex=True) as (
        figure,
        (top, bottom),
    ):
        for number, step in enumerate(replay.steps, 1):
            work = (step.waiting, step.context, step.generation)
            for request_indices, color in zip(work, WORK_COLORS.values(), strict=True):
                rows = [index + 1 for index in request_indices]
                top.barh(rows, 0.9, left=number - 0.45, height=0.7, color=color)
        top.set(ylabel="request", ylim=(num_requests + 0.6, 0.4), yticks=range(1, num_requests + 1))
        top.grid(visible=False)
        handles = [bottom.bar(0, 0, color=color) for color in WORK_COLORS.values()]
        figure.legend(handles, WORK_COLORS, loc="outside upper right", ncols=3, frameon=False)
        batch_sizes = [step.batch_size for step in replay.steps]
        bottom.bar(range(1, num_steps + 1), batch_sizes, 0.9, color=show.GREEN)
        bottom.set(xlabel="step", ylabel="computed\ntogether", xlim=(0, num_steps + 1))


def rules(replays: Mapping[str, Replay]) -> None:
    """Requests in flight over the steps, one panel for each rule, on the same axes."""
    alt = [
        f"{name}: {len(replay.steps)} steps, paused {replay.num_preemptions} times."
        for name, replay in replays.items()
    ]
    max_steps = max(len(replay.steps) for replay in replays.values())
    size = (8.5, 1.35 * len(replays) + 0.6)
    with show.picture(alt, len(replays), 1, size=size, sharex=True, sharey=True) as (_, panels):
        for (name, replay), axes in zip(replays.items(), panels, strict=True):
            numbers = range(1, len(replay.steps) + 1)
            batch_sizes = [step.batch_size for step in replay.steps]
            unfinished = [step.batch_size + len(step.waiting) for step in replay.steps]
            axes.fill_between(numbers, unfinished, step="mid", color=LIGHT_GREY)
            axes.fill_between(numbers, batch_sizes, step="mid", color=show.GREEN)
            axes.set_title(f"{name}: {len(replay.steps)} steps", loc="left", fontsize=10)
            axes.set(ylabel="requests", xlim=(0, max_steps + 1), ylim=(0, None))
        panels[-1].set_xlabel("step; green: computed together, grey: waiting")


def ratios(machines: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """This engine's tokens per second over vLLM's in the same round: a panel for each machine, a row by streams."""
    alt = ["This engine's tokens per second over vLLM's, median."]
    with show.picture(alt, 1, len(machines), size=(9, 2.7)) as (figure, panels):
        for (machine, ratios_by_streams), axes in zip(machines.items(), panels, strict=True):
            for row, (streams, round_ratios) in enumerate(ratios_by_streams.items()):
                median = statistics.median(round_ratios)
                rows = [row] * len(round_ratios)
                axes.plot(
                    round_ratios, rows, "o", color=show.BLUE, alpha=0.6, markersize=5, label="one round"
                )
                axes.plot(
                    [median, median], [row - 0.3, row + 0.3], color="black", linewidth=2, label="median"
                )
                alt.append(f"{machine}, {streams} at once: {median:.2f}.")
            axes.axvline(1, color=show.RED, linestyle="--", label="as fast as vLLM")
            num_rows = len(ratios_by_streams)
            axes.set_yticks(range(num_rows), [f"{streams} at once" for streams in ratios_by_streams])
            axes.set(xlabel="this engine / vLLM", ylim=(num_rows - 0.5, -0.5), title=machine)
        handles, labels = panels[0].get_legend_handles_labels()
        legend = dict(zip(labels, handles, strict=True))
        figure.legend(legend.values(), legend, loc="outside lower center", ncols=len(legend), frameon=False)


def cuda_graphs(records: Mapping[int, Record]) -> None:
    """Milliseconds for one token of every stream, with and without CUDA graphs, by streams."""
    labels = [f"{streams} streams" if streams > 1 else "1 stream" for streams in records]
    with_graphs = _ms_per_token(records, "aot")
    without = _ms_per_token(records, "aot_without_cuda_graphs")
    saved = [slow - fast for slow, fast in zip(without, with_graphs, strict=True)]
    changes = [
        f"{label}: {fast:.1f} ms instead of {slow:.1f} ms"
        for label, slow, fast in zip(labels, without, with_graphs, strict=True)
    ]
    alt = f"With CUDA graphs a token takes, at {', '.join(changes)}."
    with show.picture(alt, size=(7, 3)) as (_, axes):
        axes.bar(labels, with_graphs, 0.6, color=show.BLUE, label="with CUDA graphs")
        axes.bar(labels, saved, 0.6, bottom=with_graphs, color=show.ORANGE, label="more, without")
        for column, (slow, difference) in enumerate(zip(without, saved, strict=True)):
            text = f"{difference:.2f} ms\n{difference / slow:.0%}"
            axes.annotate(text, (column, slow), (0, 4), textcoords="offset points", ha="center", fontsize=9)
        axes.set(ylabel="ms for one token\nof every stream", ylim=(0, 1.3 * max(without)))
        axes.legend(frameon=False, loc="upper left")


def _ms_per_token(records: Mapping[int, Record], engine: str) -> list[float]:
    return [1000 * streams / record.summary[engine].median for streams, record in records.items()]
