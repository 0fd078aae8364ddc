"""The pictures of lesson 05."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engineroom.engine.config import BuildConfig
from engineroom.load.workload import Turn
from labs.build_engine.memory import Budget
from labs.kit import show

PARTS = {"weights": show.BLUE, "kv_cache": show.GREEN, "activations": show.ORANGE, "left": "#D9D9D9"}


def workload(trace: Sequence[Turn], limits: BuildConfig) -> None:
    """Each request by the lengths of its prompt and answer, and what the limits let in."""
    most, longest = limits.max_input_len, int(limits.max_seq_len or 0)
    fits = np.array([turn.prompt <= most and turn.total <= longest for turn in trace])
    prompts, outputs = np.array(trace).T
    alt = (
        f"{fits.sum()} of {len(trace)} requests lie within max_input_len {most} and max_seq_len {longest}; "
        f"{(~fits).sum()} would be refused."
    )
    with show.picture(alt, size=(8, 3.4)) as (_, axes):
        edge = [0, min(most, longest), min(most, longest), 0]
        axes.fill(
            edge, [0, 0, longest - edge[1], longest], color=show.SKY, alpha=0.25, label="within the limits"
        )
        axes.plot(prompts[fits], outputs[fits], ".", color=show.BLUE, label=f"served: {fits.sum()}")
        axes.plot(prompts[~fits], outputs[~fits], "x", color=show.RED, label=f"refused: {(~fits).sum()}")
        axes.set(xlabel="prompt, tokens", ylabel="answer, tokens", xlim=(0, 1.15 * max(*prompts, most)))
        axes.set_ylim(0, 1.6 * outputs.max())
        axes.legend(frameon=False, loc="upper right")


def memory(budgets: Mapping[str, Budget], needed: float, gpu: str) -> None:
    """What each engine does with one GPU: bars of gigabytes, and a line for the KV cache that `needed` bytes are."""
    alt = [f"One {gpu}, by three rules."]
    with show.picture(alt, size=(9, 3)) as (figure, axes):
        for row, (name, budget) in enumerate(reversed(budgets.items())):
            start = 0.0
            for part, color in PARTS.items():
                width = getattr(budget, part) / 1e9
                axes.barh(row, width, left=start, color=color, edgecolor="white")
                if width > 3:
                    axes.text(start + width / 2, row, f"{width:.1f}", ha="center", va="center")
                start += width
            axes.plot(
                2 * [(budget.weights + needed) / 1e9], [row - 0.4, row + 0.4], color="black", linewidth=2
            )
            used = f"{budget.kv_cache / 1e9:.1f} GB KV cache, {budget.activations / 1e9:.1f} GB activations"
            alt.append(f"{' '.join(name.split())}: {used}.")
        axes.set_yticks(range(len(budgets)), list(budgets)[::-1])
        axes.set(xlabel=f"gigabytes of one {gpu}")
        axes.grid(visible=False)
        handles = [axes.bar(0, 0, color=color) for color in PARTS.values()]
        handles += axes.plot([], [], color="black", linewidth=2)
        names = [*(part.replace("_", " ") for part in PARTS), "a full batch\nof the longest"]
        figure.legend(handles, names, loc="outside right upper", frameon=False)
        alt.append(f"A full batch of the longest requests needs {needed / 1e9:.1f} GB of KV cache.")


def concurrency(fits: Mapping[int, int], batch: int, gpu: str) -> None:
    """Requests that fit at once, over the tokens that each may take; `batch` is max_batch_size."""
    tokens, counts = list(fits), list(fits.values())
    alt = f"Requests that fit on one {gpu}: {', '.join(f'{n} of {t:,} tokens' for t, n in fits.items())}."
    with show.picture(alt, size=(8, 3)) as (_, axes):
        axes.plot(tokens, counts, "o-", color=show.BLUE)
        for one, count in fits.items():
            axes.annotate(f"{count:,}", (one, count), (4, 6), textcoords="offset points")
        axes.axhline(batch, color=show.RED, linestyle="--", label=f"max_batch_size {batch}")
        axes.set(xscale="log", yscale="log", xlabel="tokens a request may take", ylabel="requests at once")
        axes.set_xticks(tokens, [f"{one:,}" for one in tokens])
        axes.minorticks_off()
        axes.legend(frameon=False)
