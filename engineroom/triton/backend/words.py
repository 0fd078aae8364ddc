"""Texts and token sequences as Triton's tensors; NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TensorError(ValueError):
    """A tensor of a request is not what its name stands for; names the tensor."""


def decode(name: str, tensor: NDArray[Any]) -> list[str]:
    """The texts of a TYPE_STRING tensor, which holds bytes. Raises TensorError with the place of a wrong byte."""
    try:
        return [one.decode() if isinstance(one, bytes) else str(one) for one in tensor.flat]
    except UnicodeDecodeError as error:
        raise TensorError(f"{name}: byte {error.start} is not UTF-8 ({error.reason}).") from None


def word_list(sequences: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """INT32 [1, 2, n]: row 0 all their tokens, row 1 where each ends, then -1; [1, 2, 0] for none."""
    tokens = [token for one in sequences for token in one]
    made = np.full((1, 2, len(tokens)), -1, np.int32)
    made[0, 0] = tokens
    made[0, 1, : len(sequences)] = np.cumsum([len(one) for one in sequences])
    return made
