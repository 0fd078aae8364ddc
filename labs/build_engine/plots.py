"""The plots of lesson 05."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engineroom.load.workload import Turn
from labs.kit import show
from labs.kit.memory import MemoryBudget

PARTS = {"weights": show.BLUE, "kv_cache": show.GREEN, "activations": show.ORANGE, "unused": "#D9D9D9"}
MIN_LABEL_GIGABYTES = 3  # a narrower bar has no space for its number


def workload(trace: Sequence[Turn], max_input_len: int, max_seq_len: int) -> None:
    """Each request by the lengths of its prompt and its answer, and the area that the limits admit."""
    fits = np.array([turn.prompt <= max_input_len and turn.total <= max_seq_len for turn in trace])
    prompts, outputs = np.array(trace).T
    num_served, num_refused = fits.sum(), (~fits).sum()
    alt = (
        f"{num_served} of {len(trace)} requests lie within max_input_len {max_input_len} and max_seq_len "
        f"{max_seq_len}; {num_refused} would be refused."
    )
    with show.picture(alt, size=(8, 3.4)) as (_, axes):
        corner = min(max_input_len, max_seq_len)
        area_x, area_y = [0, corner, corner, 0], [0, 0, max_seq_len - corner, max_seq_len]
        axes.fill(area_x, area_y, color=show.SKY, alpha=0.25, label="within the limits")
        axes.plot(prompts[fits], outputs[fits], ".", color=show.BLUE, label=f"served: {num_served}")
        axes.plot(prompts[~fits], outputs[~fits], "x", color=show.RED, label=f"refused: {num_refused}")
        axes.set(xlabel="prompt, tokens", ylabel="answer, tokens")
        axes.set_xlim(0, 1.15 * max(*prompts, max_input_len))
        axes.set_ylim(0, 1.6 * outputs.max())
        axes.legend(frameon=False, loc="upper right")


def memory(budgets: Mapping[str, MemoryBudget], full_batch_bytes: float, gpu: str) -> None:
    """How each engine divides one GPU, as bars; a line marks the KV cache of a full batch of the longest requests."""
    alt = [f"The memory of one {gpu} under {len(budgets)} rules."]
    with show.picture(alt, size=(9, 3)) as (figure, axes):
        for row, (name, budget) in enumerate(reversed(list(budgets.items()))):
            offset = 0.0
            for part, color in PARTS.items():
                width = getattr(budget, part) / 1e9
                axes.barh(row, width, left=offset, color=color, edgecolor="white")
                if width > MIN_LABEL_GIGABYTES:
                    axes.text(offset + width / 2, row, f"{width:.1f}", ha="center", va="center")
                offset += width
            mark = (budget.weights + full_batch_bytes) / 1e9
            axes.plot([mark, mark], [row - 0.4, row + 0.4], color="black", linewidth=2)
            kv_cache, activations = budget.kv_cache / 1e9, budget.activations / 1e9
            alt.append(
                f"{' '.join(name.split())}: {kv_cache:.1f} GB KV cache, {activations:.1f} GB activations."
            )
        alt.append(f"A full batch of the longest requests needs {full_batch_bytes / 1e9:.1f} GB of KV cache.")
        axes.set_yticks(range(len(budgets)), list(budgets)[::-1])
        axes.set(xlabel=f"gigabytes of one {gpu}")
        axes.grid(visible=False)
        bars = [axes.bar(0, 0, color=color).patches[0] for color in PARTS.values()]
        marks = axes.plot([], [], color="black", linewidth=2)
        labels = [*(part.replace("_", " ") for part in PARTS), "a full batch\nof the longest"]
        figure.legend([*bars, *marks], labels, loc="outside right upper", frameon=False)


def concurrency(counts: Mapping[int, int], max_batch_size: int, gpu: str) -> None:
    """Requests that fit at once, by the tokens that each may take."""
    fits = ", ".join(f"{count} of {tokens:,} tokens" for tokens, count in counts.items())
    with show.picture(f"Requests that fit on one {gpu}: {fits}.", size=(8, 3)) as (_, axes):
        axes.plot(list(counts), list(counts.values()), "o-", color=show.BLUE)
        for tokens, count in counts.items():
            axes.annotate(f"{count:,}", (tokens, count), (4, 6), textcoords="offset points")
        axes.axhline(max_batch_size, color=show.RED, linestyle="--", label=f"max_batch_size {max_batch_size}")
        axes.set(xscale="log", yscale="log", xlabel="tokens a request may take", ylabel="requests at once")
        axes.set_xticks(list(counts), [f"{tokens:,}" for tokens in counts])
        axes.minorticks_off()
        axes.legend(frameon=False)
