"""Encode prompts, and decode outputs delta by delta, without partial characters or stop strings."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import AutoTokenizer

from engineroom.engine.runtime.grammar import GrammarCompiler
from engineroom.engine.runtime.request import FinishReason, RequestError, TokenLogprob, TokenOutput
from engineroom.openai.conversation import conversation
from engineroom.openai.incremental import UNDECODABLE, IncrementalDecoder
from engineroom.openai.messages import ChatMessage
from engineroom.openai.protocol import SAMPLING_FIELDS


class Vocabulary:
    """A Hugging Face tokenizer folder.

    `end_ids`: the tokens that end an output. `defaults`: sampling parameters for requests that set none. Both come from
    generation_config.json where there is one, as vLLM reads it: do_sample false means temperature 0.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.size = len(self.tokenizer)
        path = folder / "generation_config.json"
        config: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        self.end_ids = _as_list(config.get("eos_token_id", self.tokenizer.eos_token_id))
        self.defaults: dict[str, Any] = {"temperature": 1.0}
        self.defaults |= {name: config[name] for name in SAMPLING_FIELDS if config.get(name) is not None}
        if config.get("do_sample") is False:
            penalty = {name: self.defaults[name] for name in ("repetition_penalty",) if name in self.defaults}
            self.defaults = {"temperature": 0.0} | penalty

    def encode(self, prompt: str | list[int]) -> list[int]:
        """Token ids of a prompt. Raises RequestError for a token id that the vocabulary does not have."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        if max(prompt) >= self.size:
            raise RequestError(f"prompt has token {max(prompt)}; the vocabulary has {self.size} tokens.")
        return prompt

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return self.tokenizer.decode(token_ids, clean_up_tokenization_spaces=False)

    def text_logprob(self, token_id: int, logprob: TokenLogprob | None, text_offset: int) -> TextLogprob:
        """The texts of a token and of the likeliest tokens in its place; the token itself is the first of them."""
        token = self.decode([token_id])
        if logprob is None:
            return TextLogprob(token, None, text_offset, [])
        likeliest = [
            (self.decode([other_id]), value) for other_id, value in logprob.top if other_id != token_id
        ]
        return TextLogprob(token, logprob.logprob, text_offset, [(token, logprob.logprob), *likeliest])

    @cached_property
    def grammar_compiler(self) -> GrammarCompiler:
        """Raises GrammarError if its library is not installed."""
        return GrammarCompiler(self.tokenizer, self.end_ids)

    def chat(self, messages: Sequence[ChatMessage], tools: list[dict[str, Any]] | None = None) -> list[int]:
        """Token ids of a conversation, up to where the assistant's message begins. `tools`: for the chat template.

        Raises RequestError, with the template's own message, for messages that the chat template refuses.
        """
        if not self.tokenizer.chat_template:
            raise RequestError("the model has no chat template; use /v1/completions.")
        try:
            token_ids: list[int] = self.tokenizer.apply_chat_template(
                conversation(messages, self.tokenizer),
                tools=tools,
                add_generation_prompt=True,
                return_dict=False,
            )
        except TemplateError as error:
            raise RequestError(f"messages: the chat template refuses them: {error}") from None
        return token_ids


def _as_list(token_ids: int | list[int] | None) -> list[int]:
    if token_ids is None:
        return []
    return token_ids if isinstance(token_ids, list) else [token_ids]


class TextLogprob(NamedTuple):
    """The text of one token, its log-probability, and where in the output's text it begins.

    `top`: (text, log-probability) of the token itself, then of the likeliest tokens in its place, as in vLLM.
    `logprob` is None, and `top` empty, for the first token of a prompt.
    """

    token: str
    logprob: float | None
    text_offset: int
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class TextDelta:
    """A part of an output: its text and the tokens behind it. `logprobs` is empty unless the request asked for it."""

    text: str
    outputs: list[TokenOutput]
    logprobs: list[TextLogprob]
    finish_reason: FinishReason | None = None


def join_deltas(deltas: Sequence[TextDelta]) -> TextDelta:
    """Consecutive deltas of one output as one."""
    return TextDelta(
        text="".join(delta.text for delta in deltas),
        outputs=[output for delta in deltas for output in delta.outputs],
        logprobs=[logprob for delta in deltas for logprob in delta.logprobs],
        finish_reason=deltas[-1].finish_reason,
    )


class StopStrings:
    """Passes text on up to the stop string that is completed first.

    `held_back` is the end of the text so far, as long as it may be the beginning of a stop string.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        self.stop_strings = stop_strings
        self.held_back = ""

    def push(self, text: str, pending: str = "", *, may_stop: bool = True) -> tuple[str, bool]:
        """The text that can be sent now, and whether a stop string was found.

        `pending` follows `text`, but is not final. A stop string may end in it: no later token can change it then.
        With `may_stop` false, stop strings that end in this text are not looked for, now or later.
        """
        num_old = len(self.held_back)
        text = self.held_back + text
        begins = {stop: -1 for stop in self.stop_strings}
        if may_stop:  # a stop string may begin in the old text, but not end there
            begins = {stop: (text + pending).find(stop, max(0, num_old - len(stop) + 1)) for stop in begins}
        matches = [(begin + len(stop), begin) for stop, begin in begins.items() if begin >= 0]
        if matches:
            _, begin = min(matches)
            return (text + pending)[:begin], True
        safe = self._safe_length(text)
        self.held_back = text[safe:]
        return text[:safe], False

    def _safe_length(self, text: str) -> int:
        """How many characters of `text` can be sent now; the rest may be the beginning of a stop string."""
        for begin in range(len(text)):
            if any(stop.startswith(text[begin:]) for stop in self.stop_strings):
                return begin
        return len(text)


async def detokenize(
    outputs: AsyncGenerator[TokenOutput],
    vocabulary: Vocabulary,
    stop_strings: Sequence[str],
    with_logprobs: bool,
    min_tokens: int = 0,
) -> AsyncGenerator[TextDelta]:
    """One delta for each token; its text may be empty. Closing the stream, or a stop string, closes `outputs`.

    A stop string that ends within the first `min_tokens` tokens is text like any other.
    Without a stop string, the deltas together have the text that the tokenizer makes of all tokens at once.
    """
    decoder = IncrementalDecoder(vocabulary.tokenizer.backend_tokenizer)
    stops = StopStrings(stop_strings)
    text_length = num_tokens = 0
    async with aclosing(outputs):
        async for output in outputs:
            num_tokens += 1
            text_offset = text_length + len(decoder.pending.rstrip(UNDECODABLE))
            decoded = decoder.push(output.token_id)
            if output.finish_reason:
                decoded += decoder.finish()
            pending = decoder.pending.rstrip(UNDECODABLE)
            text, stopped = stops.push(decoded, pending, may_stop=num_tokens > min_tokens)
            finish_reason = "stop" if stopped else output.finish_reason
            if finish_reason and not stopped:
                text += stops.held_back
            logprobs = []
            if with_logprobs:
                logprob = TokenLogprob(output.logprob, output.top_logprobs)
                logprobs = [vocabulary.text_logprob(output.token_id, logprob, text_offset)]
            text_length += len(decoded)
            yield TextDelta(text, [output], logprobs, finish_reason)
            if finish_reason:
                return
