"""Completions that begin with their prompt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from engineroom.engine.runtime.request import TokenLogprob, TokenOutput
from engineroom.openai.text import TextDelta, TextLogprob, Vocabulary, join_deltas


async def echo(
    deltas: AsyncGenerator[TextDelta],
    vocabulary: Vocabulary,
    prompt: str,
    token_ids: Sequence[int],
    with_output: bool,
) -> AsyncGenerator[TextDelta]:
    """The prompt in the first delta, then the output; closing the stream closes `deltas`.

    If the first token has the prompt's log-probabilities, they come first too. Without `with_output` the prompt stands
    alone, and the text of the output is dropped.
    """
    is_first = True
    async with aclosing(deltas):
        async for delta in deltas:
            delta = _move(delta, len(prompt)) if with_output else replace(delta, text="", logprobs=[])
            if is_first:
                logprobs = _prompt_logprobs(vocabulary, token_ids, delta.outputs[0])
                delta = join_deltas([TextDelta(prompt, [], logprobs), delta])
            is_first = False
            yield delta


def _move(delta: TextDelta, num_characters: int) -> TextDelta:
    """A delta that begins `num_characters` later in the text."""
    logprobs = [entry._replace(text_offset=entry.text_offset + num_characters) for entry in delta.logprobs]
    return replace(delta, logprobs=logprobs)


def _prompt_logprobs(
    vocabulary: Vocabulary, token_ids: Sequence[int], first: TokenOutput
) -> list[TextLogprob]:
    """An entry for each token of the prompt; the first one has no log-probability, as nothing is before it.

    As in vLLM, an offset is the sum of the lengths of the tokens before.
    """
    if not first.prompt_logprobs and len(token_ids) > 1:
        return []
    logprobs: list[TokenLogprob | None] = [None, *first.prompt_logprobs]
    entries: list[TextLogprob] = []
    text_offset = 0
    for token_id, logprob in zip(token_ids, logprobs, strict=True):
        entries.append(vocabulary.text_logprob(token_id, logprob, text_offset))
        text_offset += len(entries[-1].token)
    return entries
