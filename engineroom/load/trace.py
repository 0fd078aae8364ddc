"""What the client saw of one streamed request."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trace:
    """One streamed request as the client sees it. Times are in seconds on one monotonic clock (time.perf_counter).

    ``arrivals`` has one entry for each output token; tokens that arrived in one chunk share their time. When the
    server does not tell how many tokens each chunk has, ``per_chunk`` is True and ``arrivals`` has one entry for each
    chunk with output. ``prompt_tokens`` and ``completion_tokens`` are the server's own counts, None when it sent none.
    ``finished`` is when a ``per_chunk`` answer ended, which may be after its last text.

    ``error`` says why the request failed. A stream that broke off has an error and what arrived before.
    """

    sent: float
    arrivals: list[float] = field(default_factory=list)
    text: str = ""
    prompt_tokens: int | None = None
    error: str | None = None
    completion_tokens: int | None = None
    per_chunk: bool = False
    finished: float | None = None

    @property
    def output_tokens(self) -> int | None:
        """Number of output tokens, None when the server did not tell it."""
        return self.completion_tokens if self.per_chunk else len(self.arrivals)
