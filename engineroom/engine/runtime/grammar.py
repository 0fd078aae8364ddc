"""Outputs that follow a grammar: which tokens may come next, by the library llguidance.

The library is imported when the first grammar is compiled: an engine runs without it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from engineroom.kit.errors import UserError

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GrammarError(UserError, ValueError):
    """A grammar that the library cannot compile or follow, or the library is missing."""


class Grammar:
    """A compiled grammar, which any number of requests may share."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def new_state(self) -> GrammarState:
        """The state of an output without tokens."""
        return GrammarState(self._matcher.deep_copy())


class GrammarState:
    """How far the output of one request has followed its grammar.

    `token_mask`: the tokens that may come next; bit i of byte j stands for token 8 * j + i. After the end of the
    grammar only end tokens may come.
    """

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self.token_mask = self._compute_token_mask()

    def advance(self, token_id: int) -> None:
        """Add a token to the output. Tokens after the end of the grammar, which are end tokens, change nothing.

        Raises GrammarError if the library cannot follow the grammar any further.
        """
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token_id)
            self.token_mask = self._compute_token_mask()

    def _compute_token_mask(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise GrammarError(f"the grammar cannot be followed: {_first_line(self._matcher.get_error())}")
        return mask


class GrammarCompiler:
    """Compiles grammars for the tokens of one tokenizer of the transformers library."""

    def __init__(self, tokenizer: Any, end_ids: Sequence[int]) -> None:
        """`end_ids`: the tokens that may follow a complete output.

        Raises GrammarError if the library is not installed.
        """
        try:
            from llguidance.hf import from_tokenizer
        except ImportError:
            raise GrammarError(
                "an output that follows a grammar needs the package llguidance; `pip install llguidance` installs it."
            ) from None
        self._tokenizer = from_tokenizer(tokenizer, eos_token=list(end_ids) or None)

    def json_schema(self, schema: dict[str, Any] | bool) -> Grammar:
        """The JSON texts that are valid under `schema`. Raises GrammarError, which names what is not supported."""
        from llguidance import LLMatcher

        text = LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = LLMatcher(self._tokenizer, text, log_level=0)
        if matcher.is_error():
            raise GrammarError(f"the JSON schema cannot be compiled: {_first_line(matcher.get_error())}")
        return Grammar(matcher)


def _first_line(error: str) -> str:
    """The library's error without the state of its parser."""
    return error.partition("\n")[0]


def apply_grammars(logits: Tensor, states: Sequence[GrammarState | None]) -> Tensor:
    """`logits`, float32 [num_requests, vocab_size], with minus infinity for tokens that a request's grammar forbids.

    Tokens that the tokenizer does not have, in a vocabulary that was padded, are forbidden too.
    states: one for each request, None for a request without a grammar; if all are None, `logits` itself is returned.
    """
    masks = [(row, state.token_mask) for row, state in enumerate(states) if state]
    if not masks:
        return logits
    rows = torch.tensor([row for row, _ in masks], device=logits.device)  # [num_rows]
    token_masks = [torch.frombuffer(bytearray(mask), dtype=torch.uint8) for _, mask in masks]
    packed = torch.stack(token_masks).to(logits.device)  # uint8 [num_rows, num_bits / 8]
    bits = torch.arange(8, dtype=torch.uint8, device=logits.device)
    is_allowed = ((packed[:, :, None] >> bits) & 1).flatten(1)  # uint8 [num_rows, num_bits]
    vocab_size = logits.shape[1]
    is_allowed = F.pad(is_allowed, (0, max(0, vocab_size - is_allowed.shape[1])))[:, :vocab_size]
    masked = logits.clone()
    masked[rows] = masked[rows].masked_fill(is_allowed == 0, -torch.inf)
    return masked
