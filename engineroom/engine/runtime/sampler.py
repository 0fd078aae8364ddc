"""Choose the next token of each request of a step, and the log-probabilities that requests ask for, on the device.

The order is vLLM's (vllm/v1/sample/sampler.py): grammars, log-probabilities, min_tokens and logit_bias, penalties, then
sampling.py. A step whose requests use none of them keeps the greedy tokens of the compiled graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engineroom.engine.model import argmax_rows
from engineroom.engine.runtime.grammar import apply_grammars
from engineroom.engine.runtime.request import Request, TokenLogprob
from engineroom.engine.runtime.sampling import sample
from engineroom.engine.runtime.span import spanned


class LogprobTensors(NamedTuple):
    """Log-probabilities of a step.

    chosen: float32 [num_rows], of each row's token. top: float32 [num_rows, k] and top_token_ids: int64 [num_rows, k],
    of the k likeliest tokens, the likeliest first.
    """

    chosen: Tensor
    top: Tensor
    top_token_ids: Tensor

    def to_host(self) -> LogprobTensors:
        """A copy on the host; from a GPU it is valid once the current stream has come so far."""
        return LogprobTensors(*(tensor.to("cpu", non_blocking=True) for tensor in self))

    def read(self, counts: Sequence[int | None]) -> list[TokenLogprob]:
        """For each row its token's log-probability, and those of the `counts[row]` likeliest tokens."""
        result: list[TokenLogprob] = []
        columns = (self.chosen.tolist(), self.top.tolist(), self.top_token_ids.tolist(), counts)
        for chosen, top, top_token_ids, count in zip(*columns, strict=True):
            pairs = list(zip(top_token_ids, top, strict=True))
            result.append(TokenLogprob(chosen, tuple(pairs[: count or 0])))
        return result


class SampledTokens(NamedTuple):
    """token_ids: int64 [num_requests]; logprobs: None if no request asked for them."""

    token_ids: Tensor
    logprobs: LogprobTensors | None


class PendingStep:
    """The sampled tokens of one step on their way from the device to the host."""

    def __init__(self, step_number: int, requests: list[Request], sampled: SampledTokens) -> None:
        """Starts the copy. On a CPU there is none."""
        self.step_number, self.requests = step_number, requests
        self._token_ids = sampled.token_ids.to("cpu", non_blocking=True)
        self._logprobs = sampled.logprobs and sampled.logprobs.to_host()
        self._copied = torch.cuda.Event() if sampled.token_ids.is_cuda else None
        if self._copied:
            self._copied.record()

    @spanned("read")
    def read(self) -> list[tuple[Request, int, TokenLogprob]]:
        """(request, token id, log-probability or 0.0) for each request; waits for the device."""
        if self._copied:
            self._copied.synchronize()
        logprobs = [TokenLogprob(0.0)] * len(self.requests)
        if self._logprobs:
            logprobs = self._logprobs.read([request.params.logprobs for request in self.requests])
        return list(zip(self.requests, self._token_ids.tolist(), logprobs, strict=True))


def sample_tokens(logits: Tensor, greedy_token_ids: Tensor, requests: Sequence[Request]) -> SampledTokens:
    """The next token of each request. `token_ids` is `greedy_token_ids` itself if all requests keep those.

    logits: float32 [num_requests, vocab_size]; greedy_token_ids: int64 [num_requests], the argmax of each row. For a
    request whose parameters read its output, the host must know all of its tokens.
    """
    params = [request.params for request in requests]
    logits = apply_grammars(logits, [request.grammar_state for request in requests])
    token_ids, scores = greedy_token_ids, logits
    if any(request_params.changes_logits for request_params in params):
        scores = apply_penalties(apply_logit_bias(logits, requests), requests)
        token_ids = argmax_rows(scores)
    if not all(request_params.greedy for request_params in params):
        seeds = [request.seed for request in requests]
        positions = [len(request.token_ids) for request in requests]
        token_ids = sample(scores, token_ids, params, seeds, positions)
    counts = [request_params.logprobs for request_params in params if request_params.logprobs is not None]
    return SampledTokens(token_ids, top_logprobs(logits, token_ids, max(counts)) if counts else None)


def prompt_logprobs(request: Request, logits: Tensor) -> list[TokenLogprob]:
    """Those log-probabilities of the prompt that `logits` gives and the request does not have yet; waits for them.

    logits: float32 [num_tokens, vocab_size], after each of the request's tokens from `num_computed_tokens` on.
    """
    known = len(request.prompt_logprobs)
    begin = request.num_computed_tokens
    end = min(begin + len(logits) + 1, request.num_prompt_tokens)
    token_ids = torch.tensor(request.token_ids[known + 1 : end], dtype=torch.long, device=logits.device)
    if not len(token_ids):
        return []
    rows = logits[known - begin :][: len(token_ids)]
    count = request.params.prompt_logprobs or 0
    return top_logprobs(rows, token_ids, count).read([count] * len(token_ids))


def top_logprobs(logits: Tensor, token_ids: Tensor, num_tokens: int) -> LogprobTensors:
    """Log-probabilities before temperature, top-k and top-p, of each row's token and of the `num_tokens` likeliest.

    logits: float32 [num_rows, vocab_size]; token_ids: int64 [num_rows].
    """
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(1, token_ids[:, None])[:, 0]
    return LogprobTensors(chosen, *logprobs.topk(min(num_tokens, logits.shape[1]), -1))


def apply_logit_bias(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """A copy of `logits`, float32 [num_requests, vocab_size], with each request's logit_bias added.

    Before min_tokens tokens of output, tokens that would end it get minus infinity.
    """
    entries: list[tuple[int, int, float]] = []  # row, token id, bias
    for row, request in enumerate(requests):
        entries += [(row, token_id, bias) for token_id, bias in request.params.logit_bias]
        if len(request.token_ids) - request.num_prompt_tokens < request.params.min_tokens:
            entries += [(row, token_id, -torch.inf) for token_id in request.params.end_token_ids]
    return _add(logits.clone(), entries)


def apply_penalties(logits: Tensor, requests: Sequence[Request]) -> Tensor:
    """`logits`, float32 [num_requests, vocab_size], changed in place by the penalties of each request."""
    seen: list[tuple[int, int, float]] = []  # row, token id, repetition penalty
    repeated: list[tuple[int, int, float]] = []  # row, token id, the sum of the other penalties
    for row, request in enumerate(requests):
        params = request.params
        if params.repetition_penalty != 1:
            seen += [(row, token_id, params.repetition_penalty) for token_id in set(request.token_ids)]
        if params.presence_penalty or params.frequency_penalty:
            repeated += [
                (row, token_id, -(params.frequency_penalty * count + params.presence_penalty))
                for token_id, count in Counter(request.output_token_ids).items()
            ]
    if seen:
        rows, token_ids, penalties = _columns(logits, seen)
        values = logits[rows, token_ids]  # [num_entries]
        logits[rows, token_ids] = torch.where(values > 0, values / penalties, values * penalties)
    return _add(logits, repeated)


def _add(logits: Tensor, entries: list[tuple[int, int, float]]) -> Tensor:
    """Add (row, token id, value) entries to `logits`, [num_requests, vocab_size], in place."""
    if entries:
        rows, token_ids, values = _columns(logits, entries)
        logits.index_put_((rows, token_ids), values, accumulate=True)
    return logits


def _columns(logits: Tensor, entries: list[tuple[int, int, float]]) -> tuple[Tensor, Tensor, Tensor]:
    """int64, int64 and float32 [num_entries] on the device of `logits`."""
    rows, token_ids, values = zip(*entries, strict=True)
    device = logits.device
    return (
        torch.tensor(rows, device=device),
        torch.tensor(token_ids, device=device),
        torch.tensor(values, dtype=torch.float32, device=device),
    )
