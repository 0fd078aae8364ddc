"""The workload of a comparison: a batch of requests of one shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from engineroom.compare.settings import CompareError

MAX_TOKENS_PER_BLOCK = 32  # the last block of a request may be almost empty


@dataclass(frozen=True)
class BatchWorkload:
    """`streams` requests at once, each with a prompt of `input_len` tokens and an answer of `output_len` tokens."""

    streams: int
    input_len: int
    output_len: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "16x128-64": 16 streams, 128 tokens in, 64 tokens out. Raises CompareError."""
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)-([1-9]\d*)", text.strip())
        if not match:
            raise CompareError(
                f"The workload {text!r}: expected streams x tokens in - tokens out, such as 16x128-64."
            )
        streams, input_len, output_len = map(int, match.groups())
        return cls(streams, input_len, output_len)

    @classmethod
    def parse_list(cls, text: str) -> list[Self]:
        """Read several workloads, separated by commas. Raises CompareError."""
        return [cls.parse(part) for part in text.split(",")]

    def __str__(self) -> str:
        return f"{self.streams}x{self.input_len}-{self.output_len}"

    @property
    def description(self) -> str:
        """ "16 streams, 128 tokens in, 64 out"."""
        streams = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        return f"{streams}, {self.input_len} tokens in, {self.output_len} out"

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens of KV cache that hold all streams at their full length."""
        return self.streams * (self.input_len + self.output_len + MAX_TOKENS_PER_BLOCK)
