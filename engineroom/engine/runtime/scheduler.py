"""Decide which requests take part in the next step: in-flight batching with chunked context.

The two policies are TensorRT-LLM's capacity scheduler policies. `guaranteed_no_evict` starts a request only if the
KV cache can hold the longest possible output of it and of all running requests, so it never preempts a request.
`max_utilization` starts what fits now. When blocks run out, it preempts the newest request and recomputes it later.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, get_args

from engineroom.engine.config import Limits
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import ContextLengthError, Request, RequestError
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.span import spanned
from engineroom.kit.errors import UserError

CapacitySchedulerPolicy = Literal["guaranteed_no_evict", "max_utilization"]


class PolicyError(UserError, ValueError):
    """There is no scheduler policy of that name."""


@dataclass
class ScheduledBatch:
    """What one step computes.

    `context`: (request, number of its context tokens to compute). `generation`: requests that compute one output token
    each. No request is in both.
    """

    context: list[tuple[Request, int]] = field(default_factory=list)
    generation: list[Request] = field(default_factory=list)

    @property
    def num_context_logits(self) -> int:
        """Rows of logits that the context graph computes; it can compute max_batch_size of them."""
        return sum(num_tokens if request.needs_prompt_logits else 1 for request, num_tokens in self.context)

    @property
    def is_empty(self) -> bool:
        return not self.context and not self.generation


class Scheduler:
    """Moves requests from `waiting` to `running` and back. Invariants:

    - A request has a slot and blocks if and only if it is in `running`.
    - `running` is in the order in which the requests started. Requests whose context is not computed yet are at its
      end, since a new request gets only those of a step's max_num_tokens that earlier requests do not use.
    """

    def __init__(
        self,
        limits: Limits,
        block_manager: BlockManager,
        policy: CapacitySchedulerPolicy = "guaranteed_no_evict",
    ) -> None:
        """Raises PolicyError for an unknown policy."""
        if policy not in get_args(CapacitySchedulerPolicy):
            raise PolicyError(f"policy {policy!r}: expected guaranteed_no_evict or max_utilization.")
        self.limits, self.block_manager, self.policy = limits, block_manager, policy
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.free_slots = list(range(limits.max_batch_size))
        self.num_preemptions = 0

    @property
    def has_requests(self) -> bool:
        return bool(self.waiting or self.running)

    def check(self, request: Request) -> None:
        """Raises RequestError if no step could ever hold the request."""
        max_input_len, max_seq_len = self.limits.max_input_len, self.limits.max_seq_len
        cache_tokens = self.block_manager.num_blocks * self.block_manager.tokens_per_block
        if not request.num_prompt_tokens:
            raise RequestError("the prompt is empty; send at least one token.")
        if request.num_prompt_tokens > max_input_len:
            raise ContextLengthError(
                f"the prompt has {request.num_prompt_tokens} tokens, max_input_len is {max_input_len}."
            )
        total = f"prompt and answer may reach {request.max_total_tokens} tokens"
        if request.max_total_tokens > max_seq_len:
            raise ContextLengthError(f"{total}, max_seq_len is {max_seq_len}.")
        if request.max_total_tokens > cache_tokens:
            raise ContextLengthError(f"{total}, the KV cache holds {cache_tokens}.")

    def add(self, request: Request) -> None:
        """Let a request wait for its first step. Raises RequestError if no step could ever hold it."""
        self.check(request)
        self.waiting.append(request)

    @spanned("schedule")
    def schedule(self) -> ScheduledBatch:
        """The next step: running requests first, then new ones as far as slots, blocks and max_num_tokens allow."""
        self._finish_cancelled()
        batch = ScheduledBatch()
        unfinished = [request for request in self.running if not request.is_fully_scheduled]
        in_context = [request for request in unfinished if not request.is_generating]
        for request in unfinished:
            if request.is_generating and request.is_running:  # an earlier iteration may have preempted it
                self._schedule_generation(request, batch)
        budget = self.limits.max_num_tokens - len(batch.generation)
        for request in in_context:
            if request.is_running:
                budget -= self._schedule_context(request, budget, batch)
        self._start_waiting(budget, batch)
        return batch

    def fork(self, parent: Request, params: SamplingParams) -> Request:
        """Start a request that continues the tokens of `parent`, for several answers to one prompt.

        The tokens of `parent` so far are the prompt of the new request, which shares all blocks of `parent`. The last
        one is copied before either request writes to it.

        Raises RequestError if `parent` is not generating, if its newest token was not read yet, if the new request is
        beyond the limits, or if no slot or too few blocks are free.
        """
        if not (parent.is_running and parent.is_generating) or parent.num_placeholders:
            raise RequestError(
                "only a running request whose tokens were all read can be forked; use overlap=0."
            )
        child = Request(list(parent.token_ids), params)
        self.check(child)
        child.num_computed_tokens = child.num_cached_tokens = parent.num_computed_tokens
        child.block_table = self.block_manager.fork(parent.block_table)
        if not self.free_slots or not self.admits(child):
            self.block_manager.free(child.block_table)
            raise RequestError(
                "the fork cannot start now: no slot is free, or too few blocks of the KV cache."
            )
        child.first_scheduled_time = time.perf_counter()
        child.slot = self.free_slots.pop()
        self.running.append(child)
        return child

    def finish(self, request: Request) -> None:
        """Remove a running or waiting request, and free its blocks and its slot."""
        request.finished = True
        self._release(request)
        if request in self.waiting:
            self.waiting.remove(request)

    def admits(self, request: Request) -> bool:
        """Whether `request` may start beside `running`; its block table already has the blocks of its cached prefix.

        A subclass may override this rule.
        """
        if self.policy == "max_utilization":
            return self.block_manager.num_free_blocks > 0
        blocks_to_come = sum(self._blocks_to_come(admitted) for admitted in [request, *self.running])
        return blocks_to_come <= self.block_manager.num_free_blocks

    def _blocks_to_come(self, request: Request) -> int:
        """Blocks that a request still needs if its output gets as long as max_tokens allows."""
        num_missing = self.block_manager.blocks_needed(request.max_total_tokens) - len(
            request.block_table.block_ids
        )
        return num_missing + self.block_manager.is_shared(request.block_table, request.num_computed_tokens)

    def _schedule_generation(self, request: Request, batch: ScheduledBatch) -> None:
        if self._allocate(request, len(request.token_ids)):
            batch.generation.append(request)

    def _schedule_context(self, request: Request, budget: int, batch: ScheduledBatch) -> int:
        """Add the next chunk of a request's context, at most `budget` tokens; returns how many tokens it has."""
        num_tokens = min(budget, len(request.token_ids) - request.num_computed_tokens)
        num_logits = self.limits.max_batch_size - batch.num_context_logits
        if request.needs_prompt_logits or not num_logits:
            num_tokens = min(num_tokens, num_logits)
        if self.policy == "max_utilization":
            num_blocks = len(request.block_table.block_ids) + self.block_manager.num_free_blocks
            free_tokens = num_blocks * self.block_manager.tokens_per_block - request.num_computed_tokens
            num_tokens = min(num_tokens, free_tokens)
        if num_tokens < 1 or not self._allocate(request, request.num_computed_tokens + num_tokens):
            return 0
        batch.context.append((request, num_tokens))
        return num_tokens

    def _start_waiting(self, budget: int, batch: ScheduledBatch) -> None:
        """Start waiting requests in order; stop at the first one that cannot start."""
        while self.waiting and budget > 0 and self.free_slots:
            request = self.waiting[0]
            if not self._match_and_admit(request):
                return
            self.waiting.popleft()
            request.slot = self.free_slots.pop()
            self.running.append(request)
            budget -= self._schedule_context(request, budget, batch)
            if not request.is_running:  # preempted at once: a subclass admitted more than fits
                return

    def _match_and_admit(self, request: Request) -> bool:
        """Look a request's prefix up in the cache and decide whether it may start; if not, free its blocks."""
        prefix = [] if request.needs_prompt_logits else request.token_ids
        request.block_table = self.block_manager.match_prefix(prefix)
        num_reused_tokens = len(request.block_table.block_ids) * self.block_manager.tokens_per_block
        if not self.admits(request):
            # the next step looks the prefix up again
            self.block_manager.forget_match(request.block_table, prefix)
            return False
        request.num_computed_tokens = num_reused_tokens
        if request.first_scheduled_time is None:
            request.first_scheduled_time = time.perf_counter()
            request.num_cached_tokens = num_reused_tokens
        return True

    def _allocate(self, request: Request, num_tokens: int) -> bool:
        """Allocate blocks for `num_tokens` tokens, preempting the newest requests if there are too few.

        The newest request is never in the batch yet, since requests are scheduled in the order of `running`. Returns
        False if `request` itself was the newest and is preempted.
        """
        while not self.block_manager.allocate(request.block_table, num_tokens, request.num_computed_tokens):
            newest = self.running[-1]
            self._preempt(newest)
            if newest is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self._release(request)
        request.num_computed_tokens = 0
        request.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.appendleft(request)

    def _release(self, request: Request) -> None:
        """Free the blocks and the slot of a request.

        The device may still compute a step that uses them. That is safe: it runs steps in order, so the request
        that gets them next writes to them only after this one has read them.
        """
        self.block_manager.free(request.block_table)
        if request.slot is not None:
            self.running.remove(request)
            self.free_slots.append(request.slot)
            request.slot = None

    def _finish_cancelled(self) -> None:
        for request in [request for request in (*self.running, *self.waiting) if request.cancelled]:
            self.finish(request)
