"""Decode an output token by token; the texts together are what the tokenizer makes of all tokens at once."""

from __future__ import annotations

import re

from tokenizers import Tokenizer

BYTE_TOKEN = re.compile(r"<0x..>")
UNDECODABLE = (
    "\ufffd"  # stands for bytes that are not UTF-8, and at the end of a text for an unfinished character
)


class IncrementalDecoder:
    """Decodes the tokens of one output.

    `pending` is the text of the last tokens that later tokens may still change: an unfinished character, or the bytes
    of a byte-fallback tokenizer, whose decoder replaces a whole run of bytes if one of them is not UTF-8. (The decoder
    stream of the tokenizers library sends the beginning of such a run, and raises an exception when it changes.)

    Each step decodes the pending tokens with those before them that gave the last text, not the whole output.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        special_tokens = tokenizer.get_added_tokens_decoder()
        self._special_ids = {token_id for token_id, token in special_tokens.items() if token.special}
        self._context_ids: list[int] = []  # the tokens that gave the last text
        self._pending_ids: list[int] = []
        self.pending = ""

    def push(self, token_id: int) -> str:
        """The text that is final with this token; "" while it is pending."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._special_ids:  # neither has a text
            return ""
        self._pending_ids.append(token_id)
        context = self._decode(self._context_ids)
        self.pending = self._decode(self._context_ids + self._pending_ids)[len(context) :]
        if not self.pending or self.pending.endswith(UNDECODABLE) or BYTE_TOKEN.fullmatch(token):
            return ""
        return self.finish()

    def finish(self) -> str:
        """The pending text, which no token changes any more."""
        text, self.pending = self.pending, ""
        self._context_ids, self._pending_ids = self._pending_ids, []
        return text

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True)
