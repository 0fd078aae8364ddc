"""Two vLLM servers with different flags, measured in turns: a busy minute of the machine hits both alike."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engineroom import vllm
from engineroom.kit.process import Server

BASELINE, ATTEMPT = "baseline", "attempt"


@dataclass(frozen=True)
class Duel:
    """The median of what was measured on each server, and the texts that each generated in its first round."""

    baseline: float
    attempt: float
    texts: dict[str, list[str]]

    def num_changed_texts(self) -> int:
        """How many texts of the attempt differ from the baseline's."""
        pairs = zip(self.texts[BASELINE], self.texts[ATTEMPT], strict=True)
        return sum(baseline != attempt for baseline, attempt in pairs)


RoundResult = tuple[float, list[str]]  # the value of one round, and the texts that the server generated in it


async def duel(
    model: str,
    baseline_flags: Mapping[str, Any],
    flags: Mapping[str, Any],
    measure: Callable[[Server], Awaitable[RoundResult]],
    rounds: int = 7,
) -> Duel:
    """Start one server with each set of flags and call `measure` on them in turns.

    A first call on each server, which is not counted, warms it up. Raises ServerFailed when vLLM refuses the flags, and
    what `measure` raises.
    """
    with (
        vllm.serve(model, name=BASELINE, **baseline_flags) as baseline,
        vllm.serve(model, name=ATTEMPT, **flags) as attempt,
    ):
        servers = {BASELINE: baseline, ATTEMPT: attempt}
        for server in servers.values():
            await measure(server)
        results = {name: list[RoundResult]() for name in servers}
        for _ in range(rounds):
            for name, server in servers.items():
                results[name].append(await measure(server))
    values = {name: statistics.median(value for value, _ in rows) for name, rows in results.items()}
    return Duel(values[BASELINE], values[ATTEMPT], {name: rows[0][1] for name, rows in results.items()})
