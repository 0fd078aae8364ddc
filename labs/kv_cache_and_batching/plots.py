"""The plots of lesson 03."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from engineroom.load.trace import Trace
from labs.kit import show
from labs.kit.replay import Replay
from labs.kv_cache_and_batching.runs import CountedRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BUSY, IDLE, WAITING, CACHED, MEMORY = show.BLUE, show.GREY, show.ORANGE, show.GREEN, show.PURPLE
HATCHED = {"facecolor": "none", "edgecolor": IDLE, "hatch": "////", "linewidth": 0}


def heads(bytes_by_model: Mapping[str, float]) -> None:
    """KV cache of one token for several models, as bars with their values."""
    sizes = [size / 1024 for size in bytes_by_model.values()]
    values = ", ".join(f"{name} {size:g} KiB" for name, size in zip(bytes_by_model, sizes, strict=True))
    with show.picture(f"KV cache for one token: {values}.", size=(8, 0.5 * len(sizes) + 0.9)) as (_, axes):
        bars = axes.barh(list(bytes_by_model), sizes, color=MEMORY)
        axes.bar_label(bars, [f"{size:g}" for size in sizes], padding=4)
        axes.set(xlabel="KiB of KV cache for one token", xlim=(0, 1.12 * max(sizes)))
        axes.invert_yaxis()


def loads(runs: Mapping[str, Sequence[Trace]]) -> None:
    """Several loads side by side, a line for each request: waiting for its first token, then receiving tokens."""
    alt: list[str] = []
    with show.picture(alt, 1, len(runs), size=(9, 3.4), sharey=True) as (figure, panels):
        for (name, traces), axes in zip(runs.items(), panels, strict=True):
            start = min(trace.sent for trace in traces)
            first_end = min(trace.arrivals[-1] for trace in traces)
            num_late = sum(trace.arrivals[0] > first_end for trace in traces)
            for row, trace in enumerate(sorted(traces, key=lambda trace: trace.arrivals[0]), 1):
                first = trace.arrivals[0] - start
                axes.hlines(row, trace.sent - start, first, color=WAITING, linewidth=3)
                axes.hlines(row, first, trace.arrivals[-1] - start, color=BUSY, linewidth=3)
            axes.axvline(first_end - start, color=show.RED, linestyle="--")
            axes.set_title(name, loc="left", fontsize=10)
            axes.set(xlabel="seconds after the start", xlim=(0, None))
            alt.append(
                f"{name}: {num_late} of {len(traces)} requests got their first token after another had ended."
            )
        panels[0].set_ylabel("request")
        panels[0].yaxis.get_major_locator().set_params(integer=True)
        entries = {
            "waits for its first token": {"color": WAITING, "linewidth": 3},
            "receives tokens": {"color": BUSY, "linewidth": 3},
            "the first request ends": {"color": show.RED, "linestyle": "--"},
        }
        _legend(figure, entries)


def slots(replays: Mapping[str, Replay], num_slots: int) -> None:
    """How many slots were busy and idle in each step, one panel for each way of batching, on the same axes."""
    alt: list[str] = []
    max_steps = max(len(replay.steps) for replay in replays.values())
    size = (8.5, 1.5 * len(replays) + 0.8)
    with show.picture(alt, len(replays), 1, size=size, sharex=True, sharey=True) as (figure, panels):
        for (name, replay), axes in zip(replays.items(), panels, strict=True):
            numbers = range(1, len(replay.steps) + 1)
            busy = [step.batch_size for step in replay.steps]
            idle = [num_slots - batch_size for batch_size in busy]
            axes.bar(numbers, busy, 0.9, color=BUSY)
            axes.bar(numbers, idle, 0.9, bottom=busy, **HATCHED)
            axes.set_title(f"{name}: {len(busy)} steps, {sum(idle)} idle slots", loc="left", fontsize=10)
            axes.set(ylabel="slots", xlim=(0, max_steps + 1), yticks=range(num_slots + 1))
            alt.append(f"{name}: {len(busy)} steps, {sum(idle)} idle slots.")
        panels[-1].set_xlabel("step")
        _legend(figure, {"computes a token": {"facecolor": BUSY}, "idle": HATCHED})


def prefixes(requests: Mapping[str, CountedRequest]) -> None:
    """The prompt tokens of each request: computed, and found in the cache; beside the bar, the steps of the request."""
    alt: list[str] = []
    with show.picture(alt, size=(8.5, 0.45 * len(requests) + 1.2)) as (figure, axes):
        for row, (name, request) in enumerate(requests.items()):
            length = request.computed_tokens + request.cached_tokens
            axes.barh(row, request.computed_tokens, color=BUSY)
            axes.barh(row, request.cached_tokens, left=request.computed_tokens, color=CACHED)
            axes.annotate(
                f"{request.steps} steps", (length, row), (5, 0), textcoords="offset points", va="center"
            )
            alt.append(
                f"{name}: {request.computed_tokens} prompt tokens computed, {request.cached_tokens} found, "
                f"{request.steps} steps."
            )
        longest = max(request.computed_tokens + request.cached_tokens for request in requests.values())
        axes.set_yticks(range(len(requests)), list(requests))
        axes.set(xlabel="prompt tokens", xlim=(0, 1.15 * longest))
        axes.invert_yaxis()
        _legend(figure, {"computed": {"facecolor": BUSY}, "found in the cache": {"facecolor": CACHED}})


def chunks(replays: Mapping[int, Replay], watched: int, long: int) -> None:
    """When the request `watched` got its tokens while the request `long` arrived with its long prompt.

    `replays` are by max_num_tokens; `watched` and `long` are indices in the trace.
    """
    alt = ["The tokens of one request on a time line while a long prompt arrives."]
    max_ttft = 0.0
    with show.picture(alt, size=(8.5, 0.75 * len(replays) + 1.3)) as (figure, axes):
        for row, (max_num_tokens, replay) in enumerate(replays.items()):
            token_times, ttft = milliseconds(replay, watched, long)
            max_ttft = max(max_ttft, ttft)
            gap, begin = longest_gap(token_times, ttft)
            axes.hlines(row, begin, begin + gap, color=show.RED, linewidth=2)
            axes.plot(token_times, [row] * len(token_times), ".", color=BUSY)
            axes.plot(ttft, row, "D", color=show.ORANGE)
            middle = (begin + gap / 2, row)
            axes.annotate(f"{gap:.0f} ms", middle, (0, 7), textcoords="offset points", ha="center")
            alt.append(
                f"max_num_tokens {max_num_tokens}: longest gap {gap:.0f} ms, first token of the long prompt after "
                f"{ttft:.0f} ms."
            )
        axes.axvline(0, color=show.GREY, linestyle="--")
        axes.set_yticks(range(len(replays)), [str(max_num_tokens) for max_num_tokens in replays])
        axes.set(xlabel="ms since the long prompt arrived", ylabel="max_num_tokens")
        axes.set(xlim=(-0.2 * max_ttft, 1.3 * max_ttft), ylim=(-0.5, len(replays) - 0.3))
        entries = {
            "the reader's tokens": {"color": BUSY, "marker": ".", "linestyle": ""},
            "longest gap": {"color": show.RED, "linewidth": 2},
            "first token of the long prompt": {"color": show.ORANGE, "marker": "D", "linestyle": ""},
            "its arrival": {"color": show.GREY, "linestyle": "--"},
        }
        _legend(figure, entries)


def milliseconds(replay: Replay, watched: int, long: int) -> tuple[list[float], float]:
    """When `watched` got each token and `long` its first one, in milliseconds after the arrival of `long`."""
    end_times = replay.step_end_times
    arrival_time = end_times[replay.trace[long].step - 1]
    token_times = [1000 * (end_times[step] - arrival_time) for step in replay.token_steps(watched)]
    return token_times, 1000 * (end_times[replay.token_steps(long)[0]] - arrival_time)


def longest_gap(token_times: Sequence[float], ttft: float) -> tuple[float, float]:
    """The longest gap between two tokens while the long prompt is computed, and where it begins, in milliseconds."""
    return max(
        (later - earlier, earlier) for earlier, later in pairwise(token_times) if later > 0 and earlier < ttft
    )


def budgets(gigabytes: Mapping[str, Mapping[str, float]]) -> None:
    """KV cache of several GPUs under two rules, as pairs of bars: {gpu: {rule: gigabytes}}."""
    alt: list[str] = []
    rules = list(next(iter(gigabytes.values())))
    with show.picture(alt, size=(8.5, 0.8 * len(gigabytes) + 1.3)) as (figure, axes):
        for row, (gpu, sizes) in enumerate(gigabytes.items()):
            for offset, color, size in zip((-0.19, 0.19), (MEMORY, show.SKY), sizes.values(), strict=True):
                axes.bar_label(axes.barh(row + offset, size, 0.36, color=color), [f"{size:.1f}"], padding=4)
            alt.append(f"{gpu}: " + ", ".join(f"{rule} {size:.1f} GB" for rule, size in sizes.items()) + ".")
        axes.set_yticks(range(len(gigabytes)), list(gigabytes))
        largest = max(max(sizes.values()) for sizes in gigabytes.values())
        axes.set(xlabel="gigabytes of KV cache", xlim=(0, 1.12 * largest))
        axes.invert_yaxis()
        _legend(figure, {rules[0]: {"facecolor": MEMORY}, rules[1]: {"facecolor": show.SKY}})


def _legend(figure: Figure, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """A legend above the panels: what each style means. A style with a facecolor is an area, any other a line."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(**style) if "facecolor" in style else Line2D([], [], **style) for style in entries.values()
    ]
    options = {"ncols": len(entries), "frameon": False, "fontsize": 9}
    figure.legend(handles, list(entries), loc="outside upper right", **options)
