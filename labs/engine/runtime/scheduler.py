"""Who computes in the next step: in-flight batching with chunked context, by TensorRT-LLM's capacity policies.

`guaranteed_no_evict` starts a request only when its longest possible answer fits beside the others: what runs is never
stopped. `max_utilization` starts what fits now, and when blocks run out pauses the newest, to be computed again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import torch

from labs.engine.config import BuildConfig
from labs.engine.runtime.kv_cache import BlockManager, Pages
from labs.engine.runtime.sampling import SamplingParams, generator

Policy = Literal["guaranteed_no_evict", "max_utilization"]


class RequestError(ValueError):
    """A request beyond the limits that the engine was built with; names the limit."""


@dataclass(eq=False)
class Request:
    """`tokens` is the prompt and what was answered so far; keys and values of the first `computed` are in `pages`."""

    tokens: list[int]
    params: SamplingParams
    prompt: int = 0
    computed: int = 0
    pages: Pages = field(default_factory=Pages)
    stream: torch.Generator | None = None
    cancelled: bool = False
    paused: int = 0

    def __post_init__(self) -> None:
        self.prompt = len(self.tokens)
        self.stream = generator(self.params)

    @property
    def longest(self) -> int:
        return self.prompt + self.params.max_tokens

    @property
    def answered(self) -> int:
        return len(self.tokens) - self.prompt

    def finish_reason(self) -> str | None:
        """ "stop", "length", or None while it goes on."""
        answer = self.tokens[self.prompt :]
        if answer and answer[-1] == self.params.end_id:
            return "stop"
        if any(answer[-len(word) :] == list(word) for word in self.params.stop_words):
            return "stop"
        return "length" if len(answer) >= self.params.max_tokens else None


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
        for request in list(self.running):
            ready = request in self.running and len(request.tokens) - request.computed == 1
            if ready and self._room(request, len(request.tokens)):
                made.generation.append(request)
        budget = int(self.limits.max_num_tokens or 0) - len(made.generation)
        for request in [r for r in self.running if r not in made.generation]:
            budget -= self._chunk(request, budget, made)
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_batch_size:
            if not self._start(self.waiting[0]):
                break
            request = self.waiting.popleft()
            self.running.append(request)
            budget -= self._chunk(request, budget, made)
        return made

    def finish(self, request: Request) -> None:
        """Take a request out, wherever it is, and free its blocks."""
        self.blocks.release(request.pages)
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def _drop_cancelled(self) -> None:
        for request in [r for r in (*self.running, *self.waiting) if r.cancelled]:
            self.finish(request)

    def _start(self, request: Request) -> bool:
        """Find its prefix in the cache; False when it must wait for blocks."""
        request.pages = self.blocks.start(request.tokens)
        request.computed = len(request.pages.blocks) * self.blocks.tokens_per_block
        wanted = self._outstanding(request)
        if self.policy == "guaranteed_no_evict":
            fits = wanted + sum(map(self._outstanding, self.running)) <= self.blocks.available
        else:
            fits = self.blocks.available > 0
        if not fits:
            self.blocks.release(request.pages)
            request.computed = 0
        return fits

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
        self.finish(request)
        request.computed = 0
        request.paused += 1
        self.waiting.appendleft(request)
