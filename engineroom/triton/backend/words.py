"""Texts and token sequences as Triton's tensors. NumPy is the only dependency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class TensorError(ValueError):
    """A tensor of a request does not hold what its name promises; the message names the tensor."""


def decode(name: str, tensor: NDArray[Any]) -> list[str]:
    """The texts of a TYPE_STRING tensor, which holds bytes. Raises TensorError with the position of an invalid byte."""
    try:
        return [text.decode() if isinstance(text, bytes) else str(text) for text in tensor.flat]
    except UnicodeDecodeError as error:
        raise TensorError(f"{name}: byte {error.start} is not UTF-8 ({error.reason}).") from None


def word_list(sequences: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Token sequences as NVIDIA's word lists, int32 [1, 2, num_tokens]; [1, 2, 0] when there are none.

    Row 0 holds the tokens of all sequences. Row 1 holds the index at which each sequence ends, padded with -1. Empty
    sequences are left out, as NVIDIA's preprocessing leaves out words without tokens.
    """
    sequences = [sequence for sequence in sequences if sequence]
    token_ids = [token_id for sequence in sequences for token_id in sequence]
    tensor = np.full((1, 2, len(token_ids)), -1, np.int32)
    tensor[0, 0] = token_ids
    tensor[0, 1, : len(sequences)] = np.cumsum([len(sequence) for sequence in sequences])
    return tensor
