"""Between text and tokens: prompts in, answers out piece by piece, never half a character and never a stop string."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer

from engineroom.engine.runtime.executor import Output
from engineroom.engine.runtime.scheduler import RequestError

SAMPLING = ("temperature", "top_p", "top_k")


class Vocabulary:
    """A Hugging Face tokenizer folder. `end_ids` end an answer; `defaults` are for requests that name no sampling.

    Both come from generation_config.json where there is one, as vLLM reads it: do_sample false is temperature 0.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.size = len(self.tokenizer)
        file = folder / "generation_config.json"
        config: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        ends = config.get("eos_token_id", self.tokenizer.eos_token_id)
        self.end_ids: list[int] = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.defaults = {"temperature": 1.0} | {name: config[name] for name in SAMPLING if name in config}
        if config.get("do_sample") is False:
            self.defaults = {"temperature": 0.0}

    def encode(self, prompt: str | list[int]) -> list[int]:
        """Token ids of a prompt. Raises RequestError for an id that the vocabulary does not have."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        if max(prompt) >= self.size:
            raise RequestError(f"prompt has token {max(prompt)}; the vocabulary has {self.size} tokens.")
        return prompt

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a conversation, ready for the assistant's turn. Raises RequestError in the template's words."""
        if not self.tokenizer.chat_template:
            raise RequestError("the model has no chat template; use /v1/completions.")
        try:
            ids: list[int] = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        except TemplateError as error:
            raise RequestError(f"messages: the chat template refuses them: {error}") from None
        return ids


@dataclass(frozen=True)
class Piece:
    """Some of an answer. `logprobs`, if asked for: each token's own text, log-probability and place in the text.

    `outputs` are the engine's, one for each token.
    """

    text: str
    outputs: list[Output]
    logprobs: list[tuple[str, float, int]]
    finish_reason: str | None = None


def join(parts: Sequence[Piece]) -> Piece:
    outputs, logprobs = (
        [one for part in parts for one in getattr(part, of)] for of in ("outputs", "logprobs")
    )
    return Piece("".join(part.text for part in parts), outputs, logprobs, parts[-1].finish_reason)


class StopStrings:
    """Text passes through and ends before the stop string that is complete first; what may begin one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held = stops, ""

    def push(self, text: str) -> tuple[str, bool]:
        """(text that can be sent, whether a stop string has come)."""
        text = self.held + text
        ends = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        if ends:
            return text[: min(ends)[1]], True
        keep = next(
            (n for n in range(len(text)) if any(s.startswith(text[n:]) for s in self.stops)), len(text)
        )
        self.held = text[keep:]
        return text[:keep], False


async def pieces(
    outputs: AsyncGenerator[Output], vocabulary: Vocabulary, stops: Sequence[str], logprobs: bool
) -> AsyncGenerator[Piece]:
    """One piece for each token, perhaps without text. Closing it, or a stop string, closes `outputs`."""
    tokenizer = vocabulary.tokenizer
    stream, cut, length = DecodeStream(skip_special_tokens=True), StopStrings(stops), 0
    async with aclosing(outputs):
        async for output in outputs:
            whole = stream.step(tokenizer.backend_tokenizer, output.token) or ""
            text, stopped = cut.push(whole)
            reason = "stop" if stopped else output.finish_reason
            if reason and not stopped:
                text += cut.held
            chances = [(tokenizer.decode([output.token]), output.logprob, length)] if logprobs else []
            length += len(whole)
            yield Piece(text, [output], chances, reason)
            if reason:
                return
