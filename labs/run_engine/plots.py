"""The pictures of lesson 06."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from engineroom.kit.record import Record
from labs.kit import show
from labs.run_engine.replay import Run

COLORS = (show.BLUE, show.ORANGE, show.GREEN, show.PURPLE)
WORK = {"waits": "#D9D9D9", "context": show.ORANGE, "generation": show.BLUE}


def steps(run: Run) -> None:
    """A row for each request: context and generation, step by step; below, how many were computed together."""
    many, last = len(run.requests), len(run.steps)
    alt = (
        f"{many} requests over {last} steps. A row shows when a request waited, computed its prompt and got its "
        f"tokens; below, how many were computed in each step, {run.together} at most."
    )
    with show.picture(alt, 2, 1, size=(8.5, 4.6), height_ratios=(2, 1), sharex=True) as (
        figure,
        (top, bottom),
    ):
        for x, step in enumerate(run.steps, 1):
            for rows, color in zip((step.waiting, step.context, step.generation), WORK.values(), strict=True):
                top.barh([row + 1 for row in rows], 0.9, left=x - 0.45, height=0.7, color=color)
        top.set(ylabel="request", ylim=(many + 0.6, 0.4), yticks=range(1, many + 1))
        top.grid(visible=False)
        handles = [bottom.bar(0, 0, color=color) for color in WORK.values()]
        figure.legend(handles, WORK, loc="outside upper right", ncols=3, frameon=False)
        bottom.bar(range(1, last + 1), [step.together for step in run.steps], 0.9, color=show.GREEN)
        bottom.set(xlabel="step", ylabel="computed\ntogether", xlim=(0, last + 1))


def rules(runs: Mapping[str, Run]) -> None:
    """Requests in flight over the steps, one panel for each rule, on the same axes."""
    alt = [f"{name}: {len(run.steps)} steps, paused {run.paused} times." for name, run in runs.items()]
    longest = max(len(run.steps) for run in runs.values())
    with show.picture(alt, len(runs), 1, size=(8.5, 1.35 * len(runs) + 0.6), sharex=True, sharey=True) as (
        _,
        panels,
    ):
        for (name, run), axes, color in zip(runs.items(), panels, COLORS, strict=False):
            numbers = range(1, len(run.steps) + 1)
            waiting = [step.together + len(step.waiting) for step in run.steps]
            axes.fill_between(numbers, waiting, step="mid", color="#D9D9D9")
            axes.fill_between(numbers, [step.together for step in run.steps], step="mid", color=color)
            axes.set_title(f"{name}: {len(run.steps)} steps", loc="left", fontsize=10)
            axes.set(ylabel="requests", xlim=(0, longest + 1), ylim=(0, None))
        panels[-1].set_xlabel("step; grey: waiting")


def chunks(runs: Mapping[int, Run], watched: int, long: int) -> None:
    """When one request got its tokens while a long prompt came; by max_num_tokens. Request numbers from 0."""
    alt, last = ["One request's tokens on a time line while a long prompt comes."], 0.0
    with show.picture(alt, size=(8.5, 0.75 * len(runs) + 1.2)) as (_, axes):
        for row, (most, run) in enumerate(runs.items()):
            clock = run.clock
            came = clock[run.trace[long].step - 1]
            times = [1000 * (clock[step] - came) for step in run.token_steps(watched)]
            first = 1000 * (clock[run.token_steps(long)[0]] - came)
            gap, begin = max((b - a, a) for a, b in pairwise(times) if b > 0 and a < first)
            last = max(last, first)
            axes.hlines(row, begin, begin + gap, color=show.RED, linewidth=2)
            axes.plot(times, [row] * len(times), ".", color=show.BLUE, label="a token" if not row else None)
            axes.plot(
                first, row, "D", color=show.ORANGE, label="the long prompt's first" if not row else None
            )
            axes.annotate(
                f"{gap:.0f} ms", (begin + gap / 2, row), (0, 7), textcoords="offset points", ha="center"
            )
            alt.append(
                f"max_num_tokens {most}: longest gap {gap:.0f} ms, the long prompt answered after {first:.0f} ms."
            )
        axes.axvline(0, color=show.GREY, linestyle="--")
        axes.set_yticks(range(len(runs)), [str(most) for most in runs])
        axes.set(
            xlabel="ms since the long prompt came", ylabel="max_num_tokens", ylim=(-0.5, len(runs) - 0.3)
        )
        axes.set_xlim(-0.2 * last, 1.3 * last)
        axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 1.25), ncols=2)


def ratios(places: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    """A panel for each machine, a row of dots by streams: this engine's tokens per second over vLLM's in that round."""
    alt = ["This engine's tokens per second over vLLM's, median."]
    with show.picture(alt, 1, len(places), size=(9, 2.4)) as (_, panels):
        for (place, rounds), axes in zip(places.items(), panels, strict=True):
            for row, (streams, values) in enumerate(rounds.items()):
                median = statistics.median(values)
                axes.plot(values, [row] * len(values), "o", color=show.BLUE, alpha=0.6, markersize=5)
                axes.plot(2 * [median], [row - 0.3, row + 0.3], color="black", linewidth=2)
                alt.append(f"{place}, {streams} at once: {median:.2f}.")
            axes.axvline(1, color=show.RED, linestyle="--", label="as fast as vLLM")
            axes.set_yticks(range(len(rounds)), [f"{streams} at once" for streams in rounds])
            axes.set(xlabel="this engine / vLLM", ylim=(len(rounds) - 0.5, -0.5), title=place)
        panels[0].legend(frameon=False, fontsize=8)


def graphs(records: Mapping[int, Record]) -> None:
    """Milliseconds for one token of every stream, with and without CUDA graphs, by streams."""
    steps: dict[str, list[float]] = {"aot_without_cuda_graphs": [], "aot": []}
    for streams, record in records.items():
        for name, values in steps.items():
            values.append(1000 * streams / record.summary[name].median)
    without, with_ = steps.values()
    saved = [a - b for a, b in zip(without, with_, strict=True)]
    names = [f"{n} streams" if n > 1 else "1 stream" for n in records]
    alt = ", ".join(
        f"{n}: {b:.1f} ms instead of {a:.1f} ms" for n, a, b in zip(names, without, with_, strict=True)
    )
    with show.picture(f"With CUDA graphs a token takes, at {alt}.", size=(7, 3)) as (_, axes):
        places: Any = range(len(records))
        axes.bar(places, with_, 0.6, color=show.BLUE, label="with CUDA graphs")
        axes.bar(places, saved, 0.6, bottom=with_, color=show.ORANGE, label="more, without")
        for place, high, more in zip(places, without, saved, strict=True):
            text = f"{more:.2f} ms\n{more / high:.0%}"
            axes.annotate(text, (place, high), (0, 4), textcoords="offset points", ha="center", fontsize=9)
        axes.set_xticks(places, names)
        axes.set(ylabel="ms for a token of each", ylim=(0, 1.3 * max(without)))
        axes.legend(frameon=False, loc="upper left")
