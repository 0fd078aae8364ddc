"""Encode prompts, and decode outputs delta by delta, without partial characters or stop strings."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import AutoTokenizer

from engineroom.engine.runtime.request import FinishReason, RequestError, TokenOutput
from engineroom.openai.conversation import conversation
from engineroom.openai.incremental import UNDECODABLE, IncrementalDecoder
from engineroom.openai.protocol import ChatMessage

SAMPLING_DEFAULTS = ("temperature", "top_p", "top_k")


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
        self.defaults |= {name: config[name] for name in SAMPLING_DEFAULTS if name in config}
        if config.get("do_sample") is False:
            self.defaults = {"temperature": 0.0}

    def encode(self, prompt: str | list[int]) -> list[int]:
        """Token ids of a prompt. Raises RequestError for a token id that the vocabulary does not have."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        if max(prompt) >= self.size:
            raise RequestError(f"prompt has token {max(prompt)}; the vocabulary has {self.size} tokens.")
        return prompt

    def chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Token ids of a conversation, up to where the assistant's message begins.

        Raises RequestError, with the template's own message, for messages that the chat template refuses.
        """
        if not self.tokenizer.chat_template:
            raise RequestError("the model has no chat template; use /v1/completions.")
        try:
            token_ids: list[int] = self.tokenizer.apply_chat_template(
                conversation(messages, self.tokenizer), add_generation_prompt=True, return_dict=False
            )
        except TemplateError as error:
            raise RequestError(f"messages: the chat template refuses them: {error}") from None
        return token_ids


def _as_list(token_ids: int | list[int] | None) -> list[int]:
    if token_ids is None:
        return []
    return token_ids if isinstance(token_ids, list) else [token_ids]


class TokenLogprob(NamedTuple):
    """The text of one token, its log-probability, and where in the output's text it begins."""

    token: str
    logprob: float
    text_offset: int


@dataclass(frozen=True)
class TextDelta:
    """A part of an output: its text and the tokens behind it. `logprobs` is empty unless the request asked for it."""

    text: str
    outputs: list[TokenOutput]
    logprobs: list[TokenLogprob]
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

    def push(self, text: str, pending: str = "") -> tuple[str, bool]:
        """The text that can be sent now, and whether a stop string was found.

        `pending` follows `text`, but is not final. A stop string may end in it: no later token can change it then.
        """
        text = self.held_back + text
        begins = {stop: (text + pending).find(stop) for stop in self.stop_strings}
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
) -> AsyncGenerator[TextDelta]:
    """One delta for each token; its text may be empty. Closing the stream, or a stop string, closes `outputs`.

    Without a stop string, the deltas together have the text that the tokenizer makes of all tokens at once.
    """
    tokenizer = vocabulary.tokenizer
    decoder = IncrementalDecoder(tokenizer.backend_tokenizer)
    stops = StopStrings(stop_strings)
    text_length = 0
    async with aclosing(outputs):
        async for output in outputs:
            text_offset = text_length + len(decoder.pending.rstrip(UNDECODABLE))
            decoded = decoder.push(output.token_id)
            if output.finish_reason:
                decoded += decoder.finish()
            text, stopped = stops.push(decoded, decoder.pending.rstrip(UNDECODABLE))
            finish_reason = "stop" if stopped else output.finish_reason
            if finish_reason and not stopped:
                text += stops.held_back
            logprobs = []
            if with_logprobs:
                token = tokenizer.decode([output.token_id])
                logprobs = [TokenLogprob(token, output.logprob, text_offset)]
            text_length += len(decoded)
            yield TextDelta(text, [output], logprobs, finish_reason)
            if finish_reason:
                return
