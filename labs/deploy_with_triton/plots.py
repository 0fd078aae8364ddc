"""The figures of lesson 10."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labs.deploy_with_triton.requests import TritonResponse
from labs.kit import show

VERSION_COLORS = (show.BLUE, show.ORANGE, show.GREEN, show.PURPLE)


def streams(responses_by_model: Mapping[str, Sequence[TritonResponse]]) -> None:
    """A panel for each model, a row for each stream: a grey line while it waits, a dot for each response."""
    alt = ["Streams that were requested at the same moment, each a row of dots, one dot a response."]
    num_models = len(responses_by_model)
    last_end = max(
        response.end_time - response.start_time
        for responses in responses_by_model.values()
        for response in responses
    )
    size = (8.5, 0.9 + 1.05 * num_models)
    with show.picture(alt, num_models, 1, size=size, sharex=True, squeeze=False) as (_, panels):
        for (model, responses), axes in zip(responses_by_model.items(), panels[:, 0], strict=True):
            for row, response in enumerate(responses):
                end = response.end_time - response.start_time
                times = [time - response.start_time for time in response.arrival_times]
                axes.hlines(row, 0, times[0] if times else end, color="#BBBBBB", linewidth=2)
                axes.plot(times, [row] * len(times), ".", color=show.BLUE, markersize=3)
                if response.error:
                    axes.plot(end, row, "x", color=show.RED, markersize=8)
            alt.append(_describe_streams(model, responses))
            axes.set(ylim=(len(responses) - 0.4, -0.6), xlim=(0, 1.02 * last_end))
            axes.set_yticks(range(len(responses)), range(1, len(responses) + 1))
            axes.set_title(model, loc="left", fontsize=10)
            axes.grid(axis="y", visible=False)
        panels[-1, 0].set_xlabel("seconds since all were sent; grey: waiting for the first response")


def _describe_streams(model: str, responses: Sequence[TritonResponse]) -> str:
    latest_end = max(response.end_time - response.start_time for response in responses)
    first_times = [
        response.arrival_times[0] - response.start_time for response in responses if response.arrival_times
    ]
    begin = f"the last stream begins after {max(first_times):.2f} s, " if first_times else ""
    num_errors = sum(bool(response.error) for response in responses)
    errors = f" {num_errors} of them ended with an error, a red cross." if num_errors else ""
    return f"{model}: {begin}all have ended after {latest_end:.2f} s.{errors}"


def batches(sizes: Mapping[str, Counter[int]], single_request_seconds: Mapping[str, float]) -> None:
    """For each queue delay: the calls by their number of requests, and the milliseconds of a single request.

    The batch sizes are grouped by powers of two: 1, 2–3, 4–7, …
    """
    alt = ["Calls of the preprocessing program by batch size, and the time of a request that comes alone."]
    num_groups = max(size for counts in sizes.values() for size in counts).bit_length()
    with show.picture(alt, 1, 2, size=(8.5, 2.8), width_ratios=(2, 1)) as (_, (left, right)):
        width = 0.8 / len(sizes)
        for index, ((delay, counts), color) in enumerate(zip(sizes.items(), VERSION_COLORS, strict=False)):
            calls = [0] * num_groups
            for size, count in counts.items():
                calls[size.bit_length() - 1] += count
            offset = (index - (len(sizes) - 1) / 2) * width
            left.bar([group + offset for group in range(num_groups)], calls, width, color=color, label=delay)
            milliseconds = 1000 * single_request_seconds[delay]
            right.barh(index, milliseconds, 0.6, color=color)
            right.annotate(f" {milliseconds:.1f}", (milliseconds, index), va="center")
            mean_size = sum(size * count for size, count in counts.items()) / counts.total()
            alt.append(
                f"{delay}: {counts.total()} calls, {mean_size:.1f} requests in each; alone {milliseconds:.1f} ms."
            )
        labels = [f"{1 << group}–{(2 << group) - 1}" if group else "1" for group in range(num_groups)]
        left.set_xticks(range(num_groups), labels)
        left.set(xlabel="requests in one call", ylabel="calls")
        left.yaxis.get_major_locator().set_params(integer=True)
        handles, delays = left.get_legend_handles_labels()
        names = [f"queue delay {delay}" for delay in delays]
        left.legend(handles, names, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
        right.set_yticks(range(len(single_request_seconds)), list(single_request_seconds))
        longest = 1000 * max(single_request_seconds.values())
        right.set(xlabel="ms for a single request", xlim=(0, 1.3 * longest))
        right.invert_yaxis()


def assign_rows(responses: Sequence[TritonResponse]) -> list[tuple[int, TritonResponse]]:
    """Each response with the first row that is free when it starts: as many rows as requests ran at a time."""
    end_times: list[float] = []  # of the last request in each row
    assigned = []
    for response in sorted(responses, key=lambda response: response.start_time):
        free_rows = (row for row, end_time in enumerate(end_times) if end_time <= response.start_time)
        row = next(free_rows, len(end_times))
        end_times[row : row + 1] = [response.end_time]
        assigned.append((row, response))
    return assigned


def rollout(responses: Sequence[TritonResponse], start_time: float, end_time: float) -> None:
    """A line for each request from its start to its end, in the colour of the version that responded."""
    origin = min(response.start_time for response in responses)
    versions = sorted({response.version for response in responses if not response.error}, key=int)
    counts = Counter("" if response.error else response.version for response in responses)
    alt = [f"{len(responses)} requests, a line for each."]
    alt += [f"Version {version} answered {counts[version]}." for version in versions]
    alt.append(f"{counts['']} failed.")
    with show.picture(alt, size=(8.5, 2.4)) as (_, axes):
        for row, response in assign_rows(responses):
            start, end = response.start_time - origin, response.end_time - origin
            color = show.RED
            if not response.error:
                color = VERSION_COLORS[versions.index(response.version) % len(VERSION_COLORS)]
            axes.plot([start, end], [row, row], color=color, linewidth=2)
            axes.plot(end, row, "x" if response.error else "|", color=color, markersize=10)
        for version, color in zip(versions, VERSION_COLORS, strict=False):
            axes.plot([], [], color=color, linewidth=2, label=f"version {version}: {counts[version]}")
        axes.plot([], [], "x", color=show.RED, label=f"failed: {counts['']}")
        axes.axvspan(start_time - origin, end_time - origin, color="#EEEEEE", zorder=0, label="your roll_out")
        axes.set(xlabel="seconds; a line is a request, its end a tick", ylabel="at a time", yticks=[])
        axes.margins(y=0.15)
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
