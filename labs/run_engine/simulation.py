"""Admission rules without a model: one decision in a given KV cache, or a whole trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engineroom.engine.config import Limits
from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from labs.kit.replay import AdmissionRule, Arrival, RecordingScheduler, Replay, drive

TOKENS_PER_BLOCK = 32
LIMITS = Limits(max_batch_size=8, max_input_len=512, max_seq_len=1024, max_num_tokens=512)


@dataclass(frozen=True)
class CacheSituation:
    """A KV cache of `num_blocks` blocks, the requests that run in it, and a request that waits to start.

    `running`: (prompt tokens, max_tokens, tokens generated so far) of each running request. `candidate`: (prompt
    tokens, max_tokens) of the waiting request.
    """

    num_blocks: int
    running: list[tuple[int, int, int]]
    candidate: tuple[int, int]
    tokens_per_block: int = TOKENS_PER_BLOCK

    def arguments(self) -> tuple[Request, list[Request], BlockManager]:
        """What a rule is called with, new each time."""
        block_manager = BlockManager(self.num_blocks, self.tokens_per_block)
        running = [_request(*sizes) for sizes in self.running]
        for request in running:
            request.num_computed_tokens = request.num_prompt_tokens
            block_manager.allocate(request.block_table, len(request.token_ids))
        return _request(*self.candidate), running, block_manager

    def decide(self, rule: AdmissionRule) -> Any:
        """What the rule returns for the waiting request; a wrong rule may return anything."""
        return rule(*self.arguments())

    def __str__(self) -> str:
        running = []
        for num_prompt_tokens, max_tokens, num_generated in self.running:
            num_held = -(-(num_prompt_tokens + num_generated) // self.tokens_per_block)
            running.append(f"{num_prompt_tokens} + {max_tokens}, {num_held} blocks held")
        num_prompt_tokens, max_tokens = self.candidate
        return (
            f"{self.num_blocks} blocks of {self.tokens_per_block} tokens; running (prompt + answer): "
            f"{'; '.join(running) or 'none'}; waiting: {num_prompt_tokens} + {max_tokens}"
        )


def _request(num_prompt_tokens: int, max_tokens: int, num_generated: int = 0) -> Request:
    request = Request([1] * num_prompt_tokens, SamplingParams(max_tokens=max_tokens))
    request.token_ids += [1] * num_generated
    return request


def reference_rule(request: Request, running: Sequence[Request], block_manager: BlockManager) -> bool:
    """The rule of the policy guaranteed_no_evict, the answer of exercise 06.admission."""
    blocks_to_come = sum(
        block_manager.blocks_needed(other.max_total_tokens) - len(other.block_table.block_ids)
        for other in [request, *running]
    )
    return blocks_to_come <= block_manager.num_free_blocks


class SimulatedExecutor:
    """Runs the steps of a scheduler without a model: nothing is computed, and every token id is 1."""

    def __init__(self, scheduler: RecordingScheduler) -> None:
        self.scheduler = scheduler

    def step(self) -> list[tuple[Request, TokenOutput]]:
        batch = self.scheduler.schedule()
        sampled: list[Request] = []
        for request, num_tokens in [*batch.context, *((request, 1) for request in batch.generation)]:
            request.num_computed_tokens += num_tokens
            computed_token_ids = request.token_ids[: request.num_computed_tokens]
            self.scheduler.block_manager.cache_full_blocks(request.block_table, computed_token_ids)
            if request.num_computed_tokens == len(request.token_ids):
                request.token_ids.append(1)
                sampled.append(request)
        for request in sampled:
            if request.is_fully_scheduled:
                self.scheduler.finish(request)
        return [(request, TokenOutput(1, 0.0)) for request in sampled]


def simulate(rule: AdmissionRule, trace: Sequence[Arrival], num_blocks: int = 24) -> Replay:
    """Serve a trace under a rule, without a model, in a KV cache of `num_blocks` blocks.

    Raises what `replay` raises.
    """
    block_manager = BlockManager(num_blocks, TOKENS_PER_BLOCK, enable_block_reuse=False)
    scheduler = RecordingScheduler(LIMITS, block_manager, rule=rule)
    return drive(SimulatedExecutor(scheduler), scheduler, trace)
