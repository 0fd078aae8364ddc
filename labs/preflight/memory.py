"""A picture of which model fits into which memory."""

from __future__ import annotations

from collections.abc import Mapping

from labs.kit import show
from labs.kit.check import needs_number


def draw_memory(weights_gb: Mapping[str, float], memory_gb: Mapping[str, float]) -> None:
    """Draw a bar for each model's weights and a line for each machine's memory: gigabytes (1e9 bytes), log scale."""
    sizes = {model: needs_number("00.weights", size) for model, size in weights_gb.items()}
    sentences = []
    for model, size in sizes.items():
        machines = [machine for machine, memory in memory_gb.items() if size < memory]
        sentences.append(f"{model} ({size:.4g} GB) fits into {', '.join(machines) or 'none'}")
    with show.picture(f"Weights against memory. {'; '.join(sentences)}.", size=(8.5, 3)) as (_, axes):
        labels = [f"{model}\n{size:.4g} GB" for model, size in sizes.items()]
        axes.barh(labels[::-1], list(sizes.values())[::-1], color=show.BLUE)
        for (machine, memory), color in zip(
            memory_gb.items(), (show.RED, show.GREEN, show.PURPLE), strict=False
        ):
            axes.axvline(
                memory, color=color, linewidth=2, linestyle="--", label=f"{machine}: {memory:.4g} GB"
            )
        axes.set(xscale="log", xlabel="gigabytes", title="weights, and the memory they must fit into")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
