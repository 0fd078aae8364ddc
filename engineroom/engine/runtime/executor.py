"""The engine's loop: schedule a step, run it, sample, and hand the tokens out.

With `overlap` 1 the host launches a step before it has read the tokens of the previous step, so the device never waits
for the host. The next step finds its input tokens on the device (`ModelRunner.last_token_ids`). On the host a token is
a placeholder until it is read. By the time the host sees a stop word, the request has computed one token too many,
which is dropped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from engineroom.engine.directory import EngineDir, open_engine
from engineroom.engine.model import PLACEHOLDER_TOKEN_ID, KvCacheShape
from engineroom.engine.runtime.block_allocator import BlockAllocator, RefCountAllocator
from engineroom.engine.runtime.grammar import GrammarError
from engineroom.engine.runtime.kv_cache import BlockManager, KvCacheConfig
from engineroom.engine.runtime.model_runner import ContextChunk, ModelRunner
from engineroom.engine.runtime.request import Request, RequestError, TokenLogprob, TokenOutput
from engineroom.engine.runtime.sampler import PendingStep, prompt_logprobs, sample_tokens
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import CapacitySchedulerPolicy, Scheduler
from engineroom.engine.runtime.span import spanned
from engineroom.kit import cgroup

# The share of the available memory that a KV cache on a CPU takes, unless KvCacheConfig.max_tokens is set.
CPU_FREE_MEMORY_FRACTION = 0.2


class Executor:
    """An engine that serves many requests together. Not thread-safe; see AsyncExecutor."""

    model_runner_class = ModelRunner

    def __init__(
        self,
        engine: EngineDir | str | Path,
        kv_cache_config: KvCacheConfig | None = None,
        policy: CapacitySchedulerPolicy = "guaranteed_no_evict",
        overlap: int | None = None,
        make_block_allocator: Callable[[int], BlockAllocator] = RefCountAllocator,
    ) -> None:
        """`overlap`: how many steps the host may be behind the device; the default is 1 on a GPU and 0 on a CPU.

        `make_block_allocator` returns the allocator of that many blocks, which the block manager uses.

        Raises EngineError for an engine that cannot run here.
        """
        self.engine = engine if isinstance(engine, EngineDir) else open_engine(engine)
        kv_cache_config = kv_cache_config or KvCacheConfig()
        self.model_runner = self.model_runner_class(self.engine)
        num_blocks = num_kv_cache_blocks(self.engine, kv_cache_config)
        tokens_per_block = self.engine.limits.tokens_per_block
        reuse = kv_cache_config.enable_block_reuse
        self.block_manager = BlockManager(num_blocks, tokens_per_block, reuse, make_block_allocator)
        self.scheduler = Scheduler(self.engine.limits, self.block_manager, policy)
        self.model_runner.allocate_kv_cache(num_blocks)
        self.overlap = int(self.model_runner.device == "cuda") if overlap is None else overlap
        self.num_steps = 0
        self._pending_steps: deque[PendingStep] = deque()

    @spanned("step")
    def step(self) -> list[tuple[Request, TokenOutput]]:
        """Run one step if there are requests. Returns the tokens that the host has read, perhaps of earlier steps."""
        batch = self.scheduler.schedule()
        if batch.is_empty:
            return self._read_steps(self.num_steps)
        self.num_steps += 1
        outputs: list[tuple[Request, TokenOutput]] = []
        if any(self._has_placeholders(request, num_tokens) for request, num_tokens in batch.context):
            outputs = self._read_steps(self.num_steps)  # may end some of the batch's requests
        self.model_runner.copy_blocks(self.block_manager.pop_block_copies())
        if chunks := [chunk for chunk in batch.context if not chunk[0].finished]:
            outputs += self._run_context(chunks)
        if requests := [request for request in batch.generation if not request.finished]:
            outputs += self._run_generation(requests)
        return outputs + self._read_steps(self.num_steps - self.overlap)

    def generate(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[list[int]]:
        """The output token ids of each prompt; all are served together.

        Raises RequestError for a prompt beyond the limits, before any of them runs; later for an output that cannot
        follow its grammar.
        """
        requests = [Request(list(prompt), params) for prompt in prompts]
        for request in requests:
            self.scheduler.check(request)
        for request in requests:
            self.scheduler.add(request)
        while self.scheduler.has_requests:
            for _, output in self.step():
                if output.error:
                    raise output.error
        return [request.output_token_ids for request in requests]

    def abort_all(self) -> None:
        """Drop all requests and every token that was not read yet; free their blocks and slots."""
        self._pending_steps.clear()
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            self.scheduler.finish(request)

    def _has_placeholders(self, request: Request, num_tokens: int) -> bool:
        """Whether any of the next `num_tokens` tokens of context is still a placeholder.

        That happens after a preemption: the output so far has become context, and the host must read it first.
        """
        begin = request.num_computed_tokens
        return PLACEHOLDER_TOKEN_ID in request.token_ids[begin : begin + num_tokens]

    @spanned("context")
    def _run_context(self, batch: list[tuple[Request, int]]) -> list[tuple[Request, TokenOutput]]:
        """Compute the next (request, number of tokens), and sample a token where the context is then complete.

        Returns what was read of earlier steps.
        """
        chunks = [_context_chunks(request, num_tokens) for request, num_tokens in batch]
        # float32 [num_chunks, vocab_size], int64 [num_chunks]
        logits, greedy_token_ids = self.model_runner.run_context(list(chain(*chunks)))
        complete_rows: list[int] = []
        requests: list[Request] = []
        end_row = 0
        for (request, num_tokens), request_chunks in zip(batch, chunks, strict=True):
            begin_row, end_row = end_row, end_row + len(request_chunks)
            if request.needs_prompt_logits:
                request.prompt_logprobs += prompt_logprobs(request, logits[begin_row:end_row])
            request.num_computed_tokens += num_tokens
            computed_token_ids = request.token_ids[: request.num_computed_tokens]
            self.block_manager.cache_full_blocks(request.block_table, computed_token_ids)
            if request.num_computed_tokens == len(request.token_ids):
                complete_rows.append(end_row - 1)
                requests.append(request)
                # not when the output so far is recomputed after a preemption
                if request.num_known_tokens == request.num_prompt_tokens:
                    request.context_blocks = request.block_table.counts
        if not requests:
            return []
        if end_row > len(batch):  # several chunks of one request have written its last token
            self._set_last_tokens(requests, greedy_token_ids[complete_rows])
        return self._sample(requests, logits[complete_rows], greedy_token_ids[complete_rows])

    @spanned("generation")
    def _run_generation(self, requests: list[Request]) -> list[tuple[Request, TokenOutput]]:
        """Compute the newest token of each request, and sample the next one. Returns what was read of earlier steps."""
        # float32 [num_requests, vocab_size], int64 [num_requests]
        logits, greedy_token_ids = self.model_runner.run_generation(
            [request.token_ids[-1] for request in requests],
            [request.num_computed_tokens for request in requests],
            [_slot(request) for request in requests],
            [request.block_table.block_ids for request in requests],
        )
        for request in requests:
            request.num_computed_tokens += 1
        return self._sample(requests, logits, greedy_token_ids)

    @spanned("sample")
    def _sample(
        self, requests: list[Request], logits: Tensor, greedy_token_ids: Tensor
    ) -> list[tuple[Request, TokenOutput]]:
        """Choose the next token of each request on the device and start its copy to the host.

        logits: float32 [num_requests, vocab_size]; greedy_token_ids: int64 [num_requests]. Some parameters need all
        tokens of a request on the host. Then the earlier steps are read first, while the device computes this one.
        Returns what was read.
        """
        outputs: list[tuple[Request, TokenOutput]] = []
        if any(request.params.reads_output for request in requests):
            outputs = self._read_steps(self.num_steps - 1)  # may end some of the requests
            rows = [row for row, request in enumerate(requests) if not request.finished]
            if len(rows) < len(requests):
                requests = [requests[row] for row in rows]
                logits, greedy_token_ids = logits[rows], greedy_token_ids[rows]
        if not requests:
            return outputs
        sampled = sample_tokens(logits, greedy_token_ids, requests)
        if sampled.token_ids is not greedy_token_ids:
            self._set_last_tokens(requests, sampled.token_ids)
        self._pending_steps.append(PendingStep(self.num_steps, requests, sampled))
        for request in requests:
            request.append_placeholder()
        return outputs

    def _set_last_tokens(self, requests: list[Request], token_ids: Tensor) -> None:
        self.model_runner.set_last_token_ids([_slot(request) for request in requests], token_ids)

    def _read_steps(self, last_step: int) -> list[tuple[Request, TokenOutput]]:
        """Read the tokens of all pending steps up to step number `last_step`."""
        outputs: list[tuple[Request, TokenOutput]] = []
        while self._pending_steps and self._pending_steps[0].step_number <= last_step:
            for request, token_id, logprob in self._pending_steps.popleft().read():
                if not request.finished:
                    outputs.append((request, self._receive(request, token_id, logprob)))
        return outputs

    def _receive(self, request: Request, token_id: int, logprob: TokenLogprob) -> TokenOutput:
        """Record a token that the host has read; finish the request, or cache the block that the token filled."""
        is_first = request.num_known_tokens == request.num_prompt_tokens
        try:
            finish_reason = request.resolve_placeholder(token_id)
        except GrammarError as error:
            self.scheduler.finish(request)
            return TokenOutput(token_id, logprob.logprob, "stop", error=RequestError(str(error)))
        if finish_reason:
            self.scheduler.finish(request)
        elif request.is_running:
            num_tokens = min(request.num_known_tokens, request.num_computed_tokens)
            if num_tokens % self.block_manager.tokens_per_block == 0:
                self.block_manager.cache_full_blocks(request.block_table, request.token_ids[:num_tokens])
        return TokenOutput(
            token_id,
            logprob.logprob,
            finish_reason,
            time.perf_counter(),
            top_logprobs=logprob.top,
            prompt_logprobs=tuple(request.prompt_logprobs) if is_first else (),
        )


def _context_chunks(request: Request, num_tokens: int) -> list[ContextChunk]:
    """The next tokens of a request as one chunk, or one token a chunk where the logits of each are needed."""
    begin, step = request.num_computed_tokens, 1 if request.needs_prompt_logits else num_tokens
    slot, block_ids = _slot(request), request.block_table.block_ids
    return [
        ContextChunk(request.token_ids[position : position + step], position, slot, block_ids)
        for position in range(begin, begin + num_tokens, step)
    ]


def _slot(request: Request) -> int:
    assert request.slot is not None, "only a running request, which has a slot, is computed"
    return request.slot


def num_kv_cache_blocks(engine: EngineDir, config: KvCacheConfig) -> int:
    """Blocks to allocate, without the padding block: from 1 to what max_batch_size sequences of max_seq_len need."""
    limits = engine.limits
    block_bytes = KvCacheShape.of(engine.model, limits, engine.device).bytes_per_block()
    if config.max_tokens is not None:
        num_blocks = -(-config.max_tokens // limits.tokens_per_block)
    elif engine.device == "cuda":
        num_blocks = int(torch.cuda.mem_get_info()[0] * config.free_gpu_memory_fraction) // block_bytes
    else:
        num_blocks = int(cgroup.memory()[1] * CPU_FREE_MEMORY_FRACTION) // block_bytes
    return max(1, min(num_blocks, limits.max_blocks_per_sequence * limits.max_batch_size))
