"""Which model fits into which memory, drawn."""

from __future__ import annotations

from collections.abc import Mapping

from labs.kit import show
from labs.kit.check import needs


def draw_memory(weights_gb: Mapping[str, float], memory_gb: Mapping[str, float]) -> None:
    """Bars for the weights of each model, lines for the memory of each machine; gigabytes (1e9 bytes), log scale."""
    needs("00.weights", *weights_gb.values())
    fits = [
        f"{model} ({size:.3g} GB) fits into {', '.join(m for m, room in memory_gb.items() if size < room) or 'none'}"
        for model, size in weights_gb.items()
    ]
    with show.picture(f"Weights against memory. {'; '.join(fits)}.", size=(8.5, 3)) as (_, axes):
        names = list(weights_gb)[::-1]
        axes.barh(names, [weights_gb[name] for name in names], color=show.BLUE)
        for (name, room), color in zip(memory_gb.items(), (show.RED, show.GREEN, show.PURPLE), strict=False):
            axes.axvline(room, color=color, linewidth=2, linestyle="--", label=f"{name}: {room:.3g} GB")
        axes.set(xscale="log", xlabel="gigabytes", title="weights, and the memory they must fit into")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
