"""What is built: trtllm-build's limits by their names, their defaults, and what is deduced from them.

Names, defaults and deductions follow TensorRT-LLM 1.2.1 (tensorrt_llm/builder.py BuildConfig, plugin/plugin.py);
what this engine does not have is refused, not ignored.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from engineroom.kit.errors import UserError

SCALES_POSITIONS = ("linear", "dynamic")  # rope scaling types that also stretch max_position_embeddings


class BuildError(UserError, ValueError):
    """A limit that cannot be, or a feature that this engine does not have; says what to do instead."""


@dataclass(frozen=True)
class BuildConfig:
    """Limits of an engine. `max_seq_len` and `max_num_tokens` of None are deduced by `deduce`."""

    max_batch_size: int = 2048
    max_input_len: int = 1024
    max_seq_len: int | None = None
    max_num_tokens: int | None = 8192
    max_beam_width: int = 1
    kv_cache_type: str = "PAGED"
    tokens_per_block: int = 32

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "kv_cache_type" and value is not None and (not isinstance(value, int) or value < 1):
                raise BuildError(f"--{name} {value!r}: expected a whole number from 1 up.")
        if self.max_beam_width != 1:
            raise BuildError(
                "--max_beam_width: this engine has no beam search; build with 1, or use trtllm-build."
            )
        if self.kv_cache_type.upper() != "PAGED":
            raise BuildError(f"--kv_cache_type {self.kv_cache_type}: this engine has only a paged KV cache.")
        if self.tokens_per_block & (self.tokens_per_block - 1):
            raise BuildError(
                f"--tokens_per_block {self.tokens_per_block}: expected a power of two, such as 32."
            )

    @property
    def blocks_per_sequence(self) -> int:
        """Blocks that the longest sequence needs; call it on a deduced configuration."""
        return -(-int(self.max_seq_len or 0) // self.tokens_per_block)


def deduce(wish: BuildConfig, pretrained: dict[str, Any]) -> tuple[BuildConfig, list[str]]:
    """(the limits as they are built, one line of explanation for each that was deduced or changed).

    `pretrained` is config.json of the checkpoint. Raises BuildError for limits that contradict each other.
    """
    said: list[str] = []
    positions, why = longest(pretrained)
    seq = wish.max_seq_len or positions
    if wish.max_seq_len is None:
        said.append(
            f"max_seq_len {seq:,}: {why}. The KV cache is sized by what you use, but a smaller limit is safer."
        )
    elif seq > positions:
        said.append(
            f"max_seq_len {seq:,} is above {why}, {positions:,}: the model was not trained for tokens that far on, "
            f"and its answers get worse there."
        )
    made = replace(wish, max_seq_len=seq)
    if made.max_input_len > seq:
        said.append(
            f"max_input_len {seq:,}: {made.max_input_len:,} was cut to max_seq_len, prompt and answer together."
        )
        made = replace(made, max_input_len=seq)
    most = seq * made.max_batch_size
    if made.max_num_tokens is None or made.max_num_tokens > most:
        said.append(f"max_num_tokens {most:,}: max_batch_size × max_seq_len can never hold more.")
        made = replace(made, max_num_tokens=most)
    if int(made.max_num_tokens or 0) < made.max_batch_size:
        raise BuildError(
            f"--max_num_tokens {made.max_num_tokens} is below --max_batch_size {made.max_batch_size}: each running "
            f"request takes one token of every step. Raise the first or lower the second."
        )
    return made, said


def longest(pretrained: dict[str, Any]) -> tuple[int, str]:
    """(max_seq_len, where it comes from) for a checkpoint."""
    positions = int(pretrained.get("max_position_embeddings") or 2048)
    scaling = pretrained.get("rotary_scaling") or {}
    kind, factor = scaling.get("rope_type", scaling.get("type")), float(scaling.get("factor", 1.0))
    if kind in SCALES_POSITIONS and factor != 1:
        longest = math.ceil(positions * factor)
        return longest, f"max_position_embeddings {positions:,} × rope factor {factor:g}"
    return positions, "max_position_embeddings of the model"
