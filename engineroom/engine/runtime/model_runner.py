"""The compiled graphs with their weights, the KV pools they work on, and what the device knows of each running request.

Every running request has a seat: a row of `tables` (its pages) and of `last` (its newest token, which need not have
been on the host). On a GPU a generation step is one CUDA graph for each of some batch sizes; rows to spare sit on the
last, unused seat, whose page is PADDING.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from engineroom.checkpoint import frequencies
from engineroom.engine.compile import GRAPHS, Shapes
from engineroom.engine.directory import EngineDir, EngineError, package, weights
from engineroom.engine.layers import tile
from engineroom.engine.model import skeleton
from engineroom.engine.runtime.kv_cache import PADDING

BATCHES = (1, 2, 4, *range(8, 64, 8), *range(64, 256, 32), *range(256, 2049, 128))


class Chunk(NamedTuple):
    """Consecutive tokens of one request, from position `first` on."""

    tokens: Sequence[int]
    first: int
    seat: int
    blocks: Sequence[int]


class Graphs:
    """An engine's code, loaded: `context` and `generation` fill the pools and give float32 logits."""

    cuda_graphs = True

    def __init__(self, engine: EngineDir) -> None:
        self.engine, self.device = engine, str(engine.manifest["target"]["device"])
        self.size, model = engine.build.tokens_per_block, engine.model
        self.tile = (
            tile(model.num_attention_heads // model.num_key_value_heads) if self.device == "cuda" else 1
        )
        self._graphs = {name: self.load_code(name) for name in GRAPHS[self.device]}
        self._weights = self.load_weights(engine.path / weights(0))
        seats = engine.build.max_batch_size + 1
        self.last = torch.zeros(seats, dtype=torch.long, device=self.device)
        self.tables = torch.full((seats, engine.build.blocks_per_sequence), PADDING, device=self.device)
        self._shown: list[list[int]] = [[] for _ in range(seats)]
        self._captured: dict[int, Captured] = {}

    def allocate(self, num_blocks: int) -> None:
        """Make the KV pools; on a GPU also capture the generation graph for each batch size up to the limit."""
        self.keys, self.values = shapes(self.engine).pools(num_blocks)
        if self.device == "cuda" and self.cuda_graphs:
            most = next(
                size for size in BATCHES if size >= min(self.engine.build.max_batch_size, BATCHES[-1])
            )
            for size in [size for size in BATCHES if size <= most]:
                self._captured[size] = Captured(self, size)

    def load_code(self, name: str) -> Any:
        """One compiled graph; a single-threaded runner, as only that can be captured."""
        return torch._C._aoti.AOTIModelPackageLoader(str(self.engine.path / package(0)), name, True, 1, -1)

    def load_weights(self, path: Path) -> dict[str, Tensor]:
        """Give both graphs the same tensors; what is missing or of another shape or dtype is refused here, as the
        graphs themselves would take anything. Raises EngineError."""
        found = load_file(path, device=self.device)
        found["inv_freq"] = inverse_frequencies(self.engine).to(self.device)
        config = self.engine.pretrained
        made = skeleton(self.engine.model, config, bool(self.engine.manifest.get("packed")))
        for name, wanted in {**made.state_dict(), "inv_freq": made.inv_freq}.items():
            got = found.get(name)
            if got is None or (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
                raise EngineError(
                    f"{path}: {name} is {got if got is None else (*got.shape, got.dtype)}, expected "
                    f"{(*wanted.shape, wanted.dtype)}. Build or refit the engine again."
                )
        for graph in self._graphs.values():
            names = {name: name.removeprefix("decoder.") for name in graph.get_constant_fqns()}
            graph.load_constants({name: found[own] for name, own in names.items()}, False, True, True)
        return found

    def context(self, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor]:
        """Logits [chunks, vocabulary] after the last token of each, and its likeliest next token."""
        for chunk in chunks:
            self._show(chunk.seat, chunk.blocks)
        if len(chunks) == 1 and len(chunks[0].tokens) == 1:
            (token,), first, seat, blocks = chunks[0]
            return self.generation([token], [first], [seat], [blocks])
        return self._context(chunks)

    def _context(self, chunks: Sequence[Chunk]) -> tuple[Tensor, Tensor]:
        rows: list[tuple[int, int, int]] = []  # token, position, number of its chunk
        last: list[int] = []
        for number, chunk in enumerate(chunks):
            places = range(chunk.first, chunk.first + len(chunk.tokens))
            rows += [(token, at, number) for token, at in zip(chunk.tokens, places, strict=True)]
            last.append(len(rows) - 1)
            rows += [(0, -1, number)] * (-len(rows) % self.tile)
        tokens, at, owners = self._place(list(zip(*rows, strict=True)))
        seats = self._place([chunk.seat for chunk in chunks])
        tables = self.tables[seats]
        slots = torch.where(at < 0, PADDING, tables[owners, at // self.size] * self.size + at % self.size)
        places = (at.clamp(min=0), slots, tables, owners, self._place(last))
        logits, likeliest = self._run("context", tokens, *places)
        self.last[seats] = likeliest
        return logits, likeliest

    def generation(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seats: Sequence[int],
        blocks: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Logits [sequences, vocabulary] after one token of each sequence, and its likeliest next token.

        UNKNOWN tokens are read from `last`; the likeliest are then in it.
        """
        for seat, row in zip(seats, blocks, strict=True):
            self._show(seat, row)
        many = len(tokens)
        rows = torch.tensor([tokens, seats, positions])
        if not self._captured:
            return self.generate(rows.to(self.device))
        captured = self._captured[next(size for size in BATCHES if size >= many)]
        logits, likeliest = captured(rows)
        return logits[:many], likeliest[:many]

    def generate(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same. rows int64 [3, sequences] on the device: token or UNKNOWN, seat, position."""
        graph = "single" if rows.shape[1] == 1 and "single" in self._graphs else "generation"
        return self._run(graph, rows, self.last, self.tables)

    def remember(self, seats: Sequence[int], tokens: Tensor) -> None:
        """Keep tokens that are not the likeliest where the next step looks for them."""
        self.last[self._place(seats)] = tokens

    def _show(self, seat: int, blocks: Sequence[int]) -> None:
        shown = self._shown[seat]
        if shown != blocks:
            self.tables[seat, : len(blocks)] = self._place(blocks)
            self._shown[seat] = list(blocks)

    def _place(self, values: Sequence[object]) -> Tensor:
        """On the device; a GPU fetches it from pinned memory when it gets there, and nobody waits."""
        made = torch.tensor(values)
        return made if self.device == "cpu" else made.pin_memory().to(self.device, non_blocking=True)

    def _run(self, graph: str, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits, likeliest = self._graphs[graph].boxed_run([*inputs, *self.keys, *self.values])
        return logits, likeliest


class Captured:
    """A CUDA graph of one generation step for `size` sequences: one launch instead of hundreds."""

    def __init__(self, graphs: Graphs, size: int) -> None:
        spare = torch.tensor([[0], [graphs.engine.build.max_batch_size], [0]])
        self.spare, self.rows = spare.expand(3, size), spare.expand(3, size).cuda()

        with torch.cuda.stream(torch.cuda.Stream()):
            graphs.generate(self.rows)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = graphs.generate(self.rows)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.cat([rows, self.spare[:, rows.shape[1] :]], 1).pin_memory()
        self.rows.copy_(padded, non_blocking=True)
        self.graph.replay()
        return self.result


def shapes(engine: EngineDir) -> Shapes:
    """The KV pools of an engine, from its configuration."""
    model, device = engine.model, str(engine.manifest["target"]["device"])
    dtype = getattr(torch, engine.pretrained["dtype"])
    sizes = (
        model.num_hidden_layers,
        engine.build.tokens_per_block,
        model.num_key_value_heads,
        model.head_size,
    )
    return Shapes(*sizes, dtype, device)


def inverse_frequencies(engine: EngineDir) -> Tensor:
    config = engine.pretrained
    return frequencies(engine.model.head_size, config["rotary_base"], config.get("rotary_scaling"))
