"""The pictures of lesson 04."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import torch

from engineroom import checkpoint
from engineroom.checkpoint.plan import RankPlan
from labs.kit import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # slow to import

COLORS = {"q_proj": show.BLUE, "k_proj": show.ORANGE, "v_proj": show.GREEN}
RANK_COLORS = (show.BLUE, show.RED, show.GREEN, show.PURPLE)


def row_placement(
    model: checkpoint.ModelConfig, row: int, tp_sizes: Sequence[int] = (1, 2, 4), layer: int = 0
) -> None:
    """Where row `row` of a layer's q_proj ends up in attention.qkv, for each tp_size; each bar is one rank's tensor."""
    alt: list[str] = []
    widths = list(tp_sizes)
    with show.picture(alt, 1, len(widths), size=(9, 4.6), width_ratios=widths, sharey=True) as (figure, axes):
        for panel, tp_size in zip(axes, tp_sizes, strict=True):
            for rank in range(tp_size):
                rank_row = _draw_rank(panel, rank, _slices(model, tp_size, rank, layer), row)
                if rank_row is not None:
                    panel.set_title(f"tp_size {tp_size}\nrank {rank}, row {rank_row}", fontsize=10)
                    alt.append(
                        f"With tp_size {tp_size}, row {row} of q_proj is row {rank_row} of rank {rank}."
                    )
            panel.set(xticks=range(tp_size), xticklabels=[f"rank {rank}" for rank in range(tp_size)])
            panel.grid(visible=False)
        axes[0].invert_yaxis()
        axes[0].set_ylabel("row of attention.qkv.weight")
        handles = [axes[0].bar(0, 0, color=color) for color in COLORS.values()]
        handles += axes[0].plot([], [], color="black", linewidth=3)
        figure.legend(handles, [*COLORS, f"row {row} of q_proj"], loc="outside right upper", frameon=False)


def _slices(
    model: checkpoint.ModelConfig, tp_size: int, rank: int, layer: int
) -> tuple[checkpoint.SourceSlice, ...]:
    rank_plan = RankPlan(model, checkpoint.Sharding(checkpoint.Mapping(tp_size)), rank)
    return rank_plan.qkv("attention.qkv.weight", f"model.layers.{layer}.self_attn.", "weight").slices


def _draw_rank(axes: Axes, rank: int, slices: Sequence[checkpoint.SourceSlice], row: int) -> int | None:
    """Draw one rank's tensor as a bar. Return which of its rows is q_proj's row `row`; None if another rank has it."""
    bottom, rank_row = 0, None
    for part in slices:
        name = part.source.split(".")[-2]
        height = len(part.rows)
        axes.bar(rank, height, bottom=bottom, color=COLORS[name], width=0.8, edgecolor="white")
        label = f"{name[0]} {part.rows.start}–{part.rows.stop - 1}"
        middle = bottom + (0.8 if name == "q_proj" else 0.5) * height  # in q_proj, clear of the black line
        ink = "black" if name == "k_proj" else "white"
        axes.text(rank, middle, label, ha="center", va="center", color=ink, fontsize=7)
        if name == "q_proj" and row in part.rows:
            rank_row = bottom + row - part.rows.start
            axes.plot([rank - 0.4, rank + 0.4], [rank_row, rank_row], color="black", linewidth=3)
        bottom += height
    return rank_row


def logits(reference: torch.Tensor, conversions: Mapping[str, torch.Tensor]) -> None:
    """Logits of the last token, one dot for each token of the vocabulary.

    transformers' logits are on the x axis, each conversion's on the y axis.

    `reference` and each of `conversions`: float [tokens, vocabulary].
    """
    alt: list[str] = []
    with show.picture(alt, 1, len(conversions), size=(8, 3.4), sharey=True, squeeze=False) as (_, axes):
        panels = zip(axes[0], conversions.items(), (show.BLUE, show.RED), strict=False)
        for panel, (name, tensor), color in panels:
            largest = (tensor[-1] - reference[-1]).abs().max().item()
            panel.plot(reference[-1], reference[-1], color=show.GREY, linewidth=1)
            panel.plot(reference[-1], tensor[-1], ".", color=color, markersize=3)
            panel.set_title(f"{name}: at most {largest:.2g} apart", fontsize=10)
            panel.set(xlabel="transformers' logit", ylabel="from the rank files")
            alt.append(f"{name}: its logits are at most {largest:.2g} from those of transformers.")


def parallel(column: Sequence[Sequence[int]], row: Sequence[Sequence[int]]) -> None:
    """Which part of y = W x each rank computes, for the column-parallel mlp.fc and the row-parallel mlp.proj.

    `column` and `row`: the shape [outputs, inputs] of each rank's part of the weight.
    """
    column_outputs, row_inputs = sum(rows for rows, _ in column), sum(columns for _, columns in row)
    alt = (
        f"mlp.fc is column parallel: each rank has {column[0][0]} of the {column_outputs} rows, reads all of x and "
        f"computes its own part of y. mlp.proj is row parallel: each rank has {row[0][1]} of the {row_inputs} columns, "
        f"reads its part of x and computes a summand of all of y; the summands are added up."
    )
    with show.picture(alt, 1, 2, size=(9, 3.4)) as (_, panels):
        for axes, shapes, dimension in zip(panels, (column, row), (0, 1), strict=True):
            _draw_product(axes, shapes, dimension)
        panels[0].set_title("mlp.fc is column parallel:\neach rank computes some of the outputs", fontsize=10)
        panels[1].set_title("mlp.proj is row parallel:\neach rank reads some of the inputs", fontsize=10)


def _draw_product(axes: Axes, shapes: Sequence[Sequence[int]], dimension: int) -> None:
    """Draw W as a unit square, x above its columns and y beside its rows, in the colours of the ranks that use them.

    `dimension`: the dimension of W that is sharded, 0 for outputs and 1 for inputs.
    """
    share, gap, thickness = 1 / len(shapes), 0.06, 0.09
    if dimension == 0:
        axes.bar(0, thickness, 1, -gap - thickness, align="edge", color=show.GREY)
        axes.text(
            0.5, -gap - thickness / 2, "on every rank", ha="center", va="center", color="white", fontsize=9
        )
    for rank, ((outputs, inputs), color) in enumerate(zip(shapes, cycle(RANK_COLORS), strict=False)):
        first = rank * share
        column = 1 + gap + (0 if dimension == 0 else rank * (thickness + gap))  # where this rank's y is drawn
        left, top, width, height = (0, first, 1, share) if dimension == 0 else (first, 0, share, 1)
        axes.bar(left, height, width, top, align="edge", color=color, edgecolor="white")
        axes.bar(column, height, thickness, top, align="edge", color=color, edgecolor="white")
        if dimension == 1:
            axes.bar(left, thickness, width, -gap - thickness, align="edge", color=color, edgecolor="white")
        label = f"rank {rank}\n[{outputs}, {inputs}]"
        axes.text(
            left + width / 2, top + height / 2, label, ha="center", va="center", color="white", fontsize=9
        )
    right = 1 + gap + (1 if dimension == 0 else len(shapes)) * (thickness + gap)
    axes.text(-0.02, -gap - thickness / 2, "x", ha="right", va="center")
    axes.text(-0.02, 0.5, "W", ha="right", va="center")
    axes.text(right, 0.5, "y" if dimension == 0 else "y is the sum\nof these\n(all-reduce)", va="center")
    axes.set(xlim=(-0.12, right + 0.6), ylim=(1.05, -0.25))
    axes.axis("off")
