"""Who holds which block of the KV cache: allocation, sharing of equal prefixes, release.

A block holds the keys and values of `tokens_per_block` consecutive tokens, in every layer. Full blocks are known by a
digest of their tokens and of all tokens before them, so that a later request with the same beginning shares them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PADDING = 0  # this block takes the writes of padding rows and is never handed out


@dataclass
class Pages:
    """The blocks of one sequence in order; the first `digests` of them are full and known by content."""

    blocks: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


class BlockManager:
    """Blocks 1 .. num_blocks - 1. Released blocks with known content stay usable until their place is needed."""

    def __init__(self, num_blocks: int, tokens_per_block: int, enable_block_reuse: bool = True) -> None:
        self.tokens_per_block, self.reuse = tokens_per_block, enable_block_reuse
        self._empty = deque(range(1, num_blocks))
        self._cached: OrderedDict[int, bytes] = OrderedDict()  # released, oldest first
        self._block_of: dict[bytes, int] = {}
        self._users = [0] * num_blocks
        self.reused_tokens = 0

    @property
    def total(self) -> int:
        return len(self._users) - 1

    @property
    def available(self) -> int:
        return len(self._empty) + len(self._cached)

    def needed(self, tokens: int) -> int:
        """Blocks for that many tokens."""
        return -(-tokens // self.tokens_per_block)

    def start(self, tokens: Sequence[int]) -> Pages:
        """Pages with the longest prefix of `tokens` that is in the cache; at least one token is left to compute."""
        pages = Pages()
        if not self.reuse:
            return pages
        for digest in self._digests(tokens[: len(tokens) - 1], pages):
            if (block := self._block_of.get(digest)) is None:
                break
            self._cached.pop(block, None)
            self._users[block] += 1
            pages.blocks.append(block)
            pages.digests.append(digest)
        self.reused_tokens += len(pages.blocks) * self.tokens_per_block
        return pages

    def grow(self, pages: Pages, tokens: int) -> bool:
        """Make room for `tokens` tokens in all; False, and nothing taken, when there are not blocks enough."""
        missing = self.needed(tokens) - len(pages.blocks)
        if missing > self.available:
            return False
        pages.blocks.extend(self._take() for _ in range(missing))
        return True

    def commit(self, pages: Pages, tokens: Sequence[int]) -> None:
        """Say that the keys and values of `tokens` are computed: their full blocks can be shared from now on."""
        if not self.reuse:
            return
        for digest in self._digests(tokens, pages):
            block = pages.blocks[len(pages.digests)]
            pages.digests.append(digest)
            self._block_of.setdefault(digest, block)

    def release(self, pages: Pages) -> None:
        """Give all blocks back; later ones first, so that the beginning of a prompt is kept longest."""
        for number in reversed(range(len(pages.blocks))):
            block = pages.blocks[number]
            self._users[block] -= 1
            if self._users[block]:
                continue
            digest = pages.digests[number] if number < len(pages.digests) else None
            if digest is not None and self._block_of.get(digest) == block:
                self._cached[block] = digest
            else:
                self._empty.append(block)
        pages.blocks.clear()
        pages.digests.clear()

    def _take(self) -> int:
        if self._empty:
            block = self._empty.popleft()
        else:
            block, digest = self._cached.popitem(last=False)
            del self._block_of[digest]
        self._users[block] = 1
        return block

    def _digests(self, tokens: Sequence[int], pages: Pages) -> Iterator[bytes]:
        """Digests of the full blocks of `tokens` after those that `pages` knows already."""
        size = self.tokens_per_block
        before = pages.digests[-1] if pages.digests else b""
        for first in range(len(pages.digests) * size, len(tokens) - size + 1, size):
            block = array("q", tokens[first : first + size]).tobytes()
            before = hashlib.blake2b(before + block, digest_size=16).digest()
            yield before
