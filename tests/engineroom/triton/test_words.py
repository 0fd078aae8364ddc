"""Word lists, and tensors that change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.engine.runtime.request import RequestError
from engineroom.triton.backend.request import parse_request, parse_word_list
from engineroom.triton.backend.words import word_list

TOKEN_REQUEST = {"input_ids": [5, 6], "input_lengths": 2, "request_output_len": 3}


@given(st.lists(st.lists(st.integers(0, 4095), max_size=5), max_size=5))
def test_a_word_list_is_read_as_it_was_written_without_empty_words(sequences: list[list[int]]) -> None:
    expected = tuple(tuple(sequence) for sequence in sequences if sequence)
    assert parse_word_list(word_list(sequences), "bad_words_list") == expected


NO_WORDS = np.array([[[0], [-1]]], np.int32)  # as NVIDIA's preprocessing writes `bad_words: ""`


@pytest.mark.parametrize(
    ("tensors", "is_supported"),
    [
        ({"bad_words_list": NO_WORDS, "stop_words_list": NO_WORDS}, True),
        ({"bad_words_list": np.zeros((1, 2, 0), np.int32)}, True),
        ({"bad_words_list": np.array([[[5, 0], [1, -1]]], np.int32)}, False),
        ({"embedding_bias": np.zeros((1, 300), np.float32)}, True),
        ({"embedding_bias": np.eye(1, 300, dtype=np.float32)}, False),
    ],
)
def test_tensors_that_change_nothing_are_accepted(tensors: dict[str, Any], is_supported: bool) -> None:
    request = {name: np.array([value], np.int32) for name, value in TOKEN_REQUEST.items()} | tensors
    if is_supported:
        assert parse_request(request, 300).params.stop_words == ()
    else:
        with pytest.raises(RequestError, match=f"{next(iter(tensors))}: this engine does not support it"):
            parse_request(request, 300)
