"""The limits of an engine: `BuildConfig` has what the user asks for, and `deduce` turns it into `Limits`.

Names, defaults and deductions follow TensorRT-LLM 1.2.1 (tensorrt_llm/builder.py BuildConfig, plugin/plugin.py).
Features that this engine does not have are refused, not ignored. build.py comes next.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from engineroom.kit.errors import UserError

SCALES_POSITIONS = ("linear", "dynamic")  # rope scaling types that also stretch max_position_embeddings


class BuildError(UserError, ValueError):
    """A limit that is impossible, or a feature that this engine does not have; the message says what to do instead."""


@dataclass(frozen=True)
class BuildConfig:
    """The limits that the user asks for; lengths are in tokens. `deduce` fills in `max_seq_len` and
    `max_num_tokens` where they are None.

    Raises BuildError for a limit below 1 and for a feature that this engine does not have.
    """

    max_batch_size: int = 2048
    max_input_len: int = 1024
    max_seq_len: int | None = None
    max_num_tokens: int | None = 8192
    max_beam_width: int = 1
    kv_cache_type: str = "PAGED"
    tokens_per_block: int = 32

    def __post_init__(self) -> None:
        _check_limits(self)
        if self.kv_cache_type.upper() != "PAGED":
            raise BuildError(f"--kv_cache_type {self.kv_cache_type}: this engine has only a paged KV cache.")


@dataclass(frozen=True)
class Limits:
    """The limits of a built engine; lengths are in tokens. Raises BuildError as BuildConfig does."""

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_beam_width: int = 1
    tokens_per_block: int = 32

    def __post_init__(self) -> None:
        _check_limits(self)

    @property
    def max_blocks_per_sequence(self) -> int:
        """KV cache blocks of a sequence of `max_seq_len` tokens."""
        return -(-self.max_seq_len // self.tokens_per_block)


def _check_limits(config: BuildConfig | Limits) -> None:
    for name, value in asdict(config).items():
        if name != "kv_cache_type" and value is not None and (not isinstance(value, int) or value < 1):
            raise BuildError(f"--{name} {value!r}: expected a whole number from 1 up.")
    if config.max_beam_width != 1:
        raise BuildError(
            "--max_beam_width: this engine has no beam search. Build with 1, or use trtllm-build."
        )
    if config.tokens_per_block & (config.tokens_per_block - 1):
        raise BuildError(
            f"--tokens_per_block {config.tokens_per_block}: expected a power of two, such as 32."
        )


def deduce(config: BuildConfig, pretrained_config: dict[str, Any]) -> tuple[Limits, list[str]]:
    """The limits that are built, and one line of explanation for each one that was deduced, reduced or looks doubtful.

    `pretrained_config` is the checkpoint's config.json; its max_position_embeddings and rotary_scaling are read.
    Raises BuildError for limits that contradict each other.
    """
    explanations: list[str] = []
    max_seq_len = _deduce_max_seq_len(config, pretrained_config, explanations)
    max_input_len = min(config.max_input_len, max_seq_len)
    if config.max_input_len > max_input_len:
        explanations.append(
            f"max_input_len {max_input_len:,}: reduced from {config.max_input_len:,} to max_seq_len, which counts "
            f"prompt and answer together."
        )
    limits = Limits(
        max_batch_size=config.max_batch_size,
        max_input_len=max_input_len,
        max_seq_len=max_seq_len,
        max_num_tokens=_deduce_max_num_tokens(config, max_seq_len, explanations),
        max_beam_width=config.max_beam_width,
        tokens_per_block=config.tokens_per_block,
    )
    return limits, explanations


def _deduce_max_seq_len(
    config: BuildConfig, pretrained_config: dict[str, Any], explanations: list[str]
) -> int:
    trained_len, origin = max_trained_len(pretrained_config)
    if config.max_seq_len is None:
        explanations.append(
            f"max_seq_len {trained_len:,}: {origin}. The KV cache grows with the tokens in use, not with this limit, "
            f"but a smaller limit is safer."
        )
        return trained_len
    if config.max_seq_len > trained_len:
        explanations.append(
            f"max_seq_len {config.max_seq_len:,} is above {origin}, {trained_len:,}: the model was not trained on "
            f"positions beyond that, and its answers get worse there."
        )
    return config.max_seq_len


def _deduce_max_num_tokens(config: BuildConfig, max_seq_len: int, explanations: list[str]) -> int:
    max_num_tokens = max_seq_len * config.max_batch_size
    if config.max_num_tokens is not None and config.max_num_tokens <= max_num_tokens:
        max_num_tokens = config.max_num_tokens
    else:
        explanations.append(
            f"max_num_tokens {max_num_tokens:,}: one step never has more than max_batch_size × max_seq_len tokens."
        )
    if max_num_tokens < config.max_batch_size:
        raise BuildError(
            f"--max_num_tokens {max_num_tokens} is below --max_batch_size {config.max_batch_size}: each running "
            f"request takes one token of every step. Raise the first or lower the second."
        )
    return max_num_tokens


def max_trained_len(pretrained_config: dict[str, Any]) -> tuple[int, str]:
    """The longest sequence that a model was trained for, in tokens, and the setting that says so."""
    positions = int(pretrained_config.get("max_position_embeddings") or 2048)
    scaling = pretrained_config.get("rotary_scaling") or {}
    rope_type = scaling.get("rope_type", scaling.get("type"))
    factor = float(scaling.get("factor", 1.0))
    if rope_type in SCALES_POSITIONS and factor != 1:
        return math.ceil(
            positions * factor
        ), f"max_position_embeddings {positions:,} × rope factor {factor:g}"
    return positions, "max_position_embeddings of the model"
