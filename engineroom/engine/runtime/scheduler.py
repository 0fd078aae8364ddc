"""Who computes in the next step: in-flight batching with chunked context, by TensorRT-LLM's capacity policies.

`guaranteed_no_evict` starts a request only when its longest possible answer fits beside the others: what runs is never
stopped. `max_utilization` starts what fits now, and when blocks run out pauses the newest, to be computed again.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from secrets import randbits
from typing import Literal

from engineroom.engine.config import BuildConfig
from engineroom.engine.runtime.kv_cache import BlockManager, Pages
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.errors import UserError

Policy = Literal["guaranteed_no_evict", "max_utilization"]


class RequestError(UserError, ValueError):
    """A request beyond the limits that the engine was built with; names the limit."""


@dataclass(eq=False)
class Request:
    """`tokens` is the prompt and what was answered so far; keys and values of the first `computed` are in `pages`.

    The last `pending` tokens are UNKNOWN still. A running request has a `seat`: its row of the device's tables.
    `arrived` and `scheduled` (None while it waits) are times in seconds, of time.perf_counter; `reused` is how many of
    its prompt's tokens the cache had.
    """

    tokens: list[int]
    params: SamplingParams
    prompt: int = 0
    computed: int = 0
    pending: int = 0
    seat: int | None = None
    pages: Pages = field(default_factory=Pages)
    seed: int = 0
    cancelled: bool = False
    finished: bool = False
    paused: int = 0
    arrived: float = field(default_factory=time.perf_counter)
    scheduled: float | None = None
    reused: int = 0

    def __post_init__(self) -> None:
        self.prompt = len(self.tokens)
        self.seed = randbits(63) if self.params.seed is None else self.params.seed

    @property
    def longest(self) -> int:
        return self.prompt + self.params.max_tokens

    @property
    def complete(self) -> bool:
        """All tokens were asked of the device, if not read yet."""
        return len(self.tokens) == self.longest

    @property
    def generating(self) -> bool:
        return self.computed >= self.prompt and len(self.tokens) - self.computed == 1

    def receive(self, token: int) -> str | None:
        """Fill in the first UNKNOWN; "stop", "length", or None while the answer goes on."""
        known = len(self.tokens) - self.pending
        self.tokens[known] = token
        self.pending -= 1
        known += 1
        words = [(self.params.end_id,), *self.params.stop_words]
        if any(
            known - len(word) >= self.prompt and tuple(self.tokens[known - len(word) : known]) == word
            for word in words
        ):
            return "stop"
        return "length" if known == self.longest else None


@dataclass
class Plan:
    """One step: chunks of context (request, number of tokens), and requests that generate one token."""

    context: list[tuple[Request, int]] = field(default_factory=list)
    generation: list[Request] = field(default_factory=list)


class Scheduler:
    def __init__(
        self, limits: BuildConfig, blocks: BlockManager, policy: Policy = "guaranteed_no_evict"
    ) -> None:
        if policy not in ("guaranteed_no_evict", "max_utilization"):
            raise ValueError(f"policy {policy!r}: expected guaranteed_no_evict or max_utilization.")
        self.limits, self.blocks, self.policy = limits, blocks, policy
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.seats = list(range(limits.max_batch_size))

    def check(self, request: Request) -> None:
        """Raises RequestError when no step could ever hold the request."""
        most, room = int(self.limits.max_seq_len or 0), self.blocks.total * self.blocks.tokens_per_block
        if not request.prompt:
            raise RequestError("the prompt is empty; send at least one token.")
        if request.prompt > self.limits.max_input_len:
            raise RequestError(
                f"the prompt has {request.prompt} tokens, max_input_len is {self.limits.max_input_len}."
            )
        if request.longest > most:
            raise RequestError(
                f"prompt and answer may reach {request.longest} tokens, max_seq_len is {most}."
            )
        if request.longest > room:
            raise RequestError(
                f"prompt and answer may reach {request.longest} tokens, the KV cache holds {room}."
            )

    def add(self, request: Request) -> None:
        self.check(request)
        self.waiting.append(request)

    def plan(self) -> Plan:
        """The next step. Every running request takes part; new ones join while limits and blocks allow it."""
        made = Plan()
        self._drop_cancelled()
        unfinished = []
        for request in [r for r in self.running if not r.complete]:
            if not request.generating:
                unfinished.append(request)
            elif request.seat is not None and self._room(request, len(request.tokens)):
                made.generation.append(request)
        budget = int(self.limits.max_num_tokens or 0) - len(made.generation)
        for request in [r for r in unfinished if r.seat is not None]:
            budget -= self._chunk(request, budget, made)
        while self.waiting and budget > 0 and self.seats:
            if not self._start(self.waiting[0]):
                break
            request = self.waiting.popleft()
            request.seat = self.seats.pop()
            self.running.append(request)
            budget -= self._chunk(request, budget, made)
            if request.seat is None:  # paused at once: the rule let in more than fits
                break
        return made

    def finish(self, request: Request) -> None:
        """Take a request out, wherever it is, and free its blocks."""
        request.finished = True
        self._leave(request)
        if request in self.waiting:
            self.waiting.remove(request)

    def _leave(self, request: Request) -> None:
        """The device works in order: whoever gets the blocks or the seat next writes after what was asked before."""
        self.blocks.release(request.pages)
        if request.seat is not None:
            self.running.remove(request)
            self.seats.append(request.seat)
            request.seat = None

    def _drop_cancelled(self) -> None:
        for request in [r for r in (*self.running, *self.waiting) if r.cancelled]:
            self.finish(request)

    def _start(self, request: Request) -> bool:
        """Find its prefix in the cache; False when it must wait for blocks."""
        request.pages = self.blocks.start(request.tokens)
        request.computed = len(request.pages.blocks) * self.blocks.tokens_per_block
        fits = self.admits(request)
        if not fits:
            self.blocks.release(request.pages)
            self.blocks.reused_tokens -= request.computed  # it asks again at the next step
            request.computed = 0
        elif request.scheduled is None:
            request.scheduled, request.reused = time.perf_counter(), request.computed
        return fits

    def admits(self, request: Request) -> bool:
        """Whether it may start beside `running`; its pages hold what the cache had. Override it for another rule."""
        if self.policy == "max_utilization":
            return self.blocks.available > 0
        return sum(map(self._outstanding, [request, *self.running])) <= self.blocks.available

    def _outstanding(self, request: Request) -> int:
        return self.blocks.needed(request.longest) - len(request.pages.blocks)

    def _chunk(self, request: Request, budget: int, made: Plan) -> int:
        """Add as much of its context as the step still holds; the number of tokens."""
        count = min(budget, len(request.tokens) - request.computed)
        if self.policy == "max_utilization":
            room = len(request.pages.blocks) + self.blocks.available
            count = min(count, room * self.blocks.tokens_per_block - request.computed)
        if count < 1 or not self._room(request, request.computed + count):
            return 0
        made.context.append((request, count))
        return count

    def _room(self, request: Request, tokens: int) -> bool:
        """Grow its pages, pausing the newest others if the policy allows; False when it was itself paused."""
        while not self.blocks.grow(request.pages, tokens):
            victim = self.running[-1]
            self._pause(victim)
            if victim is request:
                return False
        return True

    def _pause(self, request: Request) -> None:
        self._leave(request)
        request.computed = 0
        request.paused += 1
        self.waiting.appendleft(request)
