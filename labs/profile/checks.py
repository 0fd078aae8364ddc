"""The exercises of lesson 11."""

from __future__ import annotations

from collections.abc import Callable

from labs.kit.check import exercise, require_formula, require_function
from labs.profile import formulas, mistakes, roof_mistakes
from labs.profile.check_bottleneck import require_accused, require_mended
from labs.profile.check_self_time import SelfTimes, require_self_times
from labs.profile.formulas import Config
from labs.profile.serving import Profile


def config(
    hidden: int, intermediate: int, layers: int, heads: tuple[int, int, int], vocab: int, *, tied: bool
) -> Config:
    """The sizes as config.json names them; `heads`: query heads, KV heads, and the size of a head."""
    num_heads, num_kv_heads, head_dim = heads
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


SMALL = config(480, 1_056, 7, (9, 3, 64), 5_003, tied=False)
TIED = config(896, 4_864, 5, (14, 2, 80), 30_011, tied=True)
WIDE = config(1_024, 2_816, 11, (20, 5, 96), 9_007, tied=False)
STEPS: dict[str, tuple[Config, int, int, int]] = {
    "7 layers of 9 query and 3 KV heads, 5 sequences of 3,001 tokens, 2 bytes a value": (SMALL, 5, 3_001, 2),
    "5 layers and a tied head, 13 sequences of 1,207 tokens, 4 bytes a value": (TIED, 13, 1_207, 4),
    "11 layers of 20 query and 5 KV heads, 3 sequences of 6,007 tokens, 1 byte a value": (WIDE, 3, 6_007, 1),
    "5 layers and a tied head, one sequence of 4,099 tokens, 2 bytes a value": (TIED, 1, 4_099, 2),
}


@exercise("11.counts", version=1, title="What a decode step must do", minutes=10)
def counts(
    step_operations: Callable[[Config, int, int], float], step_bytes: Callable[[Config, int, int, int], float]
) -> None:
    require_function(step_operations, "step_operations")
    require_function(step_bytes, "step_bytes")
    require_formula(
        step_operations,
        formulas.step_operations,
        {name: arguments[:3] for name, arguments in STEPS.items()},
        "",
        "2 × (`batch` × weights in all matrices + 2 × layers × query heads × `head_dim` × `context` × `batch`)",
        mistakes=mistakes.OPERATIONS,
        subject="`step_operations`",
    )
    require_formula(
        step_bytes,
        formulas.step_bytes,
        STEPS,
        "",
        "`itemsize` × (weights in all matrices + 2 × layers × KV heads × `head_dim` × `context` × `batch`)",
        mistakes=mistakes.BYTES,
        subject="`step_bytes`",
    )


# operations, bytes, seconds, bytes/s, operations/s
ROOFS: dict[str, tuple[float, float, float, float, float]] = {
    "3e9 operations, 7e9 bytes, 2e10 bytes/s and 9e11 operations/s": (3e9, 7e9, 0.83, 2e10, 9e11),
    "8e12 operations, 5e9 bytes, 2e10 bytes/s and 9e11 operations/s": (8e12, 5e9, 21.7, 2e10, 9e11),
    "1.7e10 operations, 1.6e10 bytes, 3.35e12 bytes/s and 9.9e14 operations/s": (
        1.7e10, 1.6e10, 0.0067, 3.35e12, 9.9e14,
    ),
    "4.1e13 operations, 1.9e10 bytes, 3.35e12 bytes/s and 9.9e14 operations/s": (
        4.1e13, 1.9e10, 0.058, 3.35e12, 9.9e14,
    ),
}  # fmt: skip


@exercise("11.roof", version=1, title="Which ceiling binds", minutes=6)
def roof(attainable: Callable[..., float], share_of_roof: Callable[..., float]) -> None:
    require_function(attainable, "attainable")
    require_function(share_of_roof, "share_of_roof")
    require_formula(
        attainable,
        formulas.attainable,
        {
            name: (operations, size, bandwidth, rate)
            for name, (operations, size, _, bandwidth, rate) in ROOFS.items()
        },
        "",
        "`min(matrix_rate, operations / num_bytes * bandwidth)`",
        mistakes=roof_mistakes.ATTAINABLE,
        subject="`attainable`",
    )
    require_formula(
        share_of_roof,
        formulas.share_of_roof,
        ROOFS,
        "",
        "`operations / seconds / attainable(operations, num_bytes, bandwidth, matrix_rate)`",
        mistakes=roof_mistakes.SHARE,
        subject="`share_of_roof`",
    )


@exercise("11.self_time", version=1, title="Self times from nested spans", minutes=10)
def self_time(self_times: SelfTimes) -> None:
    require_function(self_times, "self_times")
    require_self_times(self_times)


@exercise("11.bottleneck", version=1, title="Find and mend the planted bottleneck", minutes=12)
def bottleneck(evidence: object, before: Profile, after: Profile) -> None:
    span = require_accused(evidence, before)
    require_mended(span, before, after)
