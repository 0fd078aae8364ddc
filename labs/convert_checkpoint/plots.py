"""The pictures of lesson 04."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence

import torch

from engineroom.checkpoint.config import ModelConfig
from engineroom.checkpoint.mapping import Mapping
from engineroom.checkpoint.plan import Layout, Piece, Rank
from labs.kit import show

COLORS = {"q_proj": show.BLUE, "k_proj": show.ORANGE, "v_proj": show.GREEN}


def journey(model: ModelConfig, row: int, tp_sizes: Sequence[int] = (1, 2, 4), layer: int = 0) -> None:
    """Where row `row` of a layer's q_proj ends up in attention.qkv, for each tp_size; each bar is one rank's tensor."""
    alt: list[str] = []
    widths = list(tp_sizes)
    with show.picture(alt, 1, len(widths), size=(9, 4), width_ratios=widths, sharey=True) as (figure, axes):
        for one, tp in zip(axes, tp_sizes, strict=True):
            for rank in range(tp):
                found = _bar(one, rank, _pieces(model, tp, rank, layer), row)
                if found is not None:
                    one.set_title(f"tp_size {tp}\nrank {rank}, row {found}", fontsize=10)
                    alt.append(f"With tp_size {tp}, row {row} of q_proj is row {found} of rank {rank}.")
            one.set(xticks=range(tp), xticklabels=[f"rank {r}" for r in range(tp)])
            one.grid(visible=False)
        axes[0].invert_yaxis()
        axes[0].set_ylabel("row of attention.qkv.weight")
        handles = [axes[0].bar(0, 0, color=color) for color in COLORS.values()]
        handles += axes[0].plot([], [], color="black", linewidth=3)
        figure.legend(handles, [*COLORS, f"row {row} of q_proj"], loc="outside right upper", frameon=False)


def _pieces(model: ModelConfig, tp: int, rank: int, layer: int) -> tuple[Piece, ...]:
    share = Rank(model, Layout(Mapping(tp)), rank)
    return share.qkv("attention.qkv.weight", f"model.layers.{layer}.self_attn.", "weight").pieces


def _bar(axes: object, rank: int, pieces: tuple[Piece, ...], row: int) -> int | None:
    """Draw one rank's stack; the place of q_proj's row `row` in it, or None when another rank has it."""
    bottom, found = 0, None
    for piece in pieces:
        name = piece.source.split(".")[-2]
        axes.bar(rank, len(piece.rows), bottom=bottom, color=COLORS[name], width=0.8, edgecolor="white")
        label = f"{name[0]} {piece.rows.start}–{piece.rows.stop - 1}"
        axes.text(
            rank, bottom + 0.65 * len(piece.rows), label, ha="center", va="center", color="white", fontsize=7
        )
        if name == "q_proj" and row in piece.rows:
            found = bottom + row - piece.rows.start
            axes.plot([rank - 0.4, rank + 0.4], [found, found], color="black", linewidth=3)
        bottom += len(piece.rows)
    return found


def logits(reference: torch.Tensor, ours: Dict[str, torch.Tensor]) -> None:
    """Logits of the last token, one dot a word of the vocabulary: transformers' across, each conversion's up.

    `reference` and each of `ours`: float [tokens, vocabulary].
    """
    alt: list[str] = []
    with show.picture(alt, 1, len(ours), size=(8, 3.4), sharey=True, squeeze=False) as (_, axes):
        for one, (name, tensor), color in zip(axes[0], ours.items(), (show.BLUE, show.RED), strict=False):
            apart = (tensor[-1] - reference[-1]).abs().max().item()
            one.plot(reference[-1], reference[-1], color=show.GREY, linewidth=1)
            one.plot(reference[-1], tensor[-1], ".", color=color, markersize=3)
            one.set_title(f"{name}: at most {apart:.2g} apart", fontsize=10)
            one.set(xlabel="transformers' logit", ylabel="from the rank files")
            alt.append(f"{name}: its logits are at most {apart:.2g} from those of transformers.")
