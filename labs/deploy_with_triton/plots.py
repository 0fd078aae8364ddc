"""The pictures of lesson 10."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labs.deploy_with_triton.requests import Answer
from labs.kit import show

VERSIONS = (show.BLUE, show.ORANGE, show.GREEN, show.PURPLE)


def streams(ways: Mapping[str, Sequence[Answer]]) -> None:
    """A panel for each way, a row for each stream: a grey line while it waits, a dot for each response."""
    alt = ["Streams that were asked for at the same moment, each a row of dots, one dot a response."]
    last = max(one.done - one.sent for answers in ways.values() for one in answers)
    size = (8.5, 0.9 + 1.05 * len(ways))
    with show.picture(alt, len(ways), 1, size=size, sharex=True, squeeze=False) as (_, panels):
        for (name, answers), axes in zip(ways.items(), panels[:, 0], strict=True):
            for row, one in enumerate(answers):
                times = [moment - one.sent for moment in one.arrivals]
                axes.hlines(row, 0, times[0], color="#BBBBBB", linewidth=2)
                axes.plot(times, [row] * len(times), ".", color=show.BLUE, markersize=3)
            first = max(one.arrivals[0] - one.sent for one in answers)
            end = max(one.done - one.sent for one in answers)
            alt.append(f"{name}: the last one begins after {first:.2f} s, all have ended after {end:.2f} s.")
            axes.set(ylim=(len(answers) - 0.4, -0.6), xlim=(0, 1.02 * last))
            axes.set_yticks(range(len(answers)), range(1, len(answers) + 1))
            axes.set_title(name, loc="left", fontsize=10)
            axes.grid(axis="y", visible=False)
        panels[-1, 0].set_xlabel("seconds since all were sent; grey: waits for its first response")


def batches(sizes: Mapping[str, Counter[int]], alone: Mapping[str, float]) -> None:
    """How often the program was called with how many requests, and the milliseconds of a request that is alone."""
    alt = ["Calls of the preprocessing program by batch size, and how long a request takes that is alone."]
    most = max(size for counts in sizes.values() for size in counts).bit_length()
    with show.picture(alt, 1, 2, size=(8.5, 2.8), width_ratios=(2, 1)) as (_, (left, right)):
        width = 0.8 / len(sizes)
        for turn, ((name, counts), color) in enumerate(zip(sizes.items(), VERSIONS, strict=False)):
            calls = [
                sum(n for size, n in counts.items() if size.bit_length() == bits + 1) for bits in range(most)
            ]
            places = [bits + (turn - (len(sizes) - 1) / 2) * width for bits in range(most)]
            left.bar(places, calls, width, color=color, label=name)
            right.barh(turn, 1000 * alone[name], 0.6, color=color)
            right.annotate(f" {1000 * alone[name]:.1f}", (1000 * alone[name], turn), va="center")
            mean = sum(size * count for size, count in counts.items()) / counts.total()
            alt.append(
                f"{name}: {counts.total()} calls, {mean:.1f} requests in each; alone {1000 * alone[name]:.1f} ms."
            )
        names = [f"{1 << bits}–{(2 << bits) - 1}" if bits else "1" for bits in range(most)]
        left.set_xticks(range(most), names)
        left.set(xlabel="requests in one call", ylabel="calls")
        left.legend(frameon=False, title="queue delay")
        right.set_yticks(range(len(alone)), list(alone))
        right.set(xlabel="ms for a request that is alone", xlim=(0, 1.3 * 1000 * max(alone.values())))
        right.invert_yaxis()


def rows(answers: Sequence[Answer]) -> list[tuple[int, Answer]]:
    """Each answer with a row in which nothing else was under way: as many rows as there were at a time."""
    free: list[float] = []
    placed = []
    for one in sorted(answers, key=lambda one: one.sent):
        row = next((row for row, until in enumerate(free) if until <= one.sent), len(free))
        free[row : row + 1] = [one.done]
        placed.append((row, one))
    return placed


def rollout(answers: Sequence[Answer], began: float, ended: float) -> None:
    """A line for each request from its sending to its end, in the colour of the version that answered."""
    zero = min(one.sent for one in answers)
    kinds = sorted({one.version for one in answers if not one.error}, key=int)
    counts = Counter("" if one.error else one.version for one in answers)
    alt = [f"{len(answers)} requests, a line for each."]
    alt += [f"Version {kind} answered {counts[kind]}." for kind in kinds] + [f"{counts['']} failed."]
    with show.picture(alt, size=(8.5, 2.4)) as (_, axes):
        for row, one in rows(answers):
            color = show.RED if one.error else VERSIONS[kinds.index(one.version) % len(VERSIONS)]
            axes.plot([one.sent - zero, one.done - zero], [row, row], color=color, linewidth=2)
            axes.plot(one.done - zero, row, "x" if one.error else "|", color=color, markersize=10)
        for kind, color in zip(kinds, VERSIONS, strict=False):
            axes.plot([], [], color=color, linewidth=2, label=f"version {kind}: {counts[kind]}")
        axes.plot([], [], "x", color=show.RED, label=f"failed: {counts['']}")
        axes.axvspan(began - zero, ended - zero, color="#EEEEEE", zorder=0, label="your roll_out")
        axes.set(xlabel="seconds; a line is a request, its end a tick", ylabel="at a time", yticks=[])
        axes.margins(y=0.15)
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1))
