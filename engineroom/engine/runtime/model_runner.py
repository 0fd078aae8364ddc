"""Run the compiled graphs of an engine, with its weights, its KV cache and the state of each request on the device.

Every running request has a slot: its row of `block_tables` and its entry of `last_token_ids`. The latter is the
request's newest token, which the host may not have read yet. The last slot belongs to no request: padding rows use it,
and its block table points to PADDING_BLOCK_ID. On a GPU a generation step is a CUDA graph. There is one graph for each
of CUDA_GRAPH_BATCH_SIZES, and other batches are padded to the next larger of these sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from engineroom.engine.directory import GRAPHS, EngineDir, EngineError
from engineroom.engine.layers import tokens_per_tile
from engineroom.engine.model import KvCacheShape, meta_decoder
from engineroom.engine.runtime.kv_cache import PADDING_BLOCK_ID
from engineroom.engine.torch_private import CompiledGraph, load_package

CUDA_GRAPH_BATCH_SIZES = (1, 2, 4, *range(8, 64, 8), *range(64, 256, 32), *range(256, 2049, 128))


class ContextChunk(NamedTuple):
    """Consecutive tokens of one request; the first one stands at `first_position` of its sequence."""

    token_ids: Sequence[int]
    first_position: int
    slot: int
    block_ids: Sequence[int]


class ModelRunner:
    """A loaded engine. `run_context` and `run_generation` extend the KV cache and return logits.

    Both only launch work: on a GPU they return before it is computed. The device runs steps in the order of the calls.
    """

    use_cuda_graphs = True

    def __init__(self, engine: EngineDir) -> None:
        """Raises EngineError for weights that do not fit the compiled code."""
        self.engine, self.device = engine, engine.device
        self.tokens_per_block, model = engine.limits.tokens_per_block, engine.model
        self.tokens_per_tile = 1
        if self.device == "cuda":
            self.tokens_per_tile = tokens_per_tile(model.num_attention_heads // model.num_key_value_heads)
        self._graphs = {name: self.load_graph(name) for name in GRAPHS[self.device]}
        self._weights = self.load_weights(engine.weights)
        num_slots = engine.limits.max_batch_size + 1
        table_shape = (num_slots, engine.limits.max_blocks_per_sequence)
        self.last_token_ids = torch.zeros(num_slots, dtype=torch.long, device=self.device)  # [num_slots]
        self.block_tables = torch.full(table_shape, PADDING_BLOCK_ID, device=self.device)  # int64
        # by slot: the block ids that `block_tables` has on the device
        self._host_block_tables: list[list[int]] = [[] for _ in range(num_slots)]
        self._cuda_graphs: dict[int, CudaGraph] = {}  # by batch size

    def allocate_kv_cache(self, num_blocks: int) -> None:
        """Allocate `num_blocks` blocks and the padding block; on a GPU also capture the CUDA graphs."""
        shape = KvCacheShape.of(self.engine.model, self.engine.limits, self.device)
        self.k_caches, self.v_caches = shape.allocate(1 + num_blocks)
        if self.device == "cuda" and self.use_cuda_graphs:
            largest = min(self.engine.limits.max_batch_size, CUDA_GRAPH_BATCH_SIZES[-1])
            for batch_size in CUDA_GRAPH_BATCH_SIZES:
                if batch_size <= padded_batch_size(largest):
                    self._cuda_graphs[batch_size] = CudaGraph(self, batch_size)

    def copy_blocks(self, block_copies: Sequence[tuple[int, int]]) -> None:
        """Copy keys and values of whole blocks in every layer: (source, destination) block ids, in this order."""
        for cache in [*self.k_caches, *self.v_caches] if block_copies else []:
            for source, destination in block_copies:
                cache[destination] = cache[source]

    def load_graph(self, name: str) -> CompiledGraph:
        """Load one compiled graph. A subclass may return another object with the same methods."""
        return load_package(self.engine.package, name)

    def load_weights(self, path: Path) -> dict[str, Tensor]:
        """Load the weights and give every graph the same tensors, by name. Raises EngineError if one does not fit."""
        tensors = load_file(path, device=self.device)
        tensors["inv_freq"] = self.engine.model.inverse_frequencies().to(self.device)
        self._check_weights(path, tensors)
        for graph in self._graphs.values():
            names = {name: name.removeprefix("decoder.") for name in graph.get_constant_fqns()}
            graph.load_constants({name: tensors[key] for name, key in names.items()}, False, True, True)
        return tensors

    def _check_weights(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Raises EngineError for a missing tensor, a wrong shape or a wrong dtype: the graphs do not check."""
        decoder = meta_decoder(self.engine.model, self.engine.packed)
        for name, expected in {**decoder.state_dict(), "inv_freq": decoder.inv_freq}.items():
            tensor = tensors.get(name)
            if tensor is None or (tensor.shape, tensor.dtype) != (expected.shape, expected.dtype):
                actual = None if tensor is None else (*tensor.shape, tensor.dtype)
                raise EngineError(
                    f"{path}: {name} is {actual}, expected {(*expected.shape, expected.dtype)}. "
                    f"Build or refit the engine again."
                )

    def run_context(self, chunks: Sequence[ContextChunk]) -> tuple[Tensor, Tensor]:
        """Compute the tokens of all chunks.

        Returns the logits after the last token of each chunk, float32 [num_chunks, vocab_size], and their greedy token
        ids, int64 [num_chunks], which also become the last tokens of the slots.
        """
        for chunk in chunks:
            self._update_block_table(chunk.slot, chunk.block_ids)
        if len(chunks) == 1 and len(chunks[0].token_ids) == 1:
            token_ids, position, slot, block_ids = chunks[0]
            return self.run_generation(token_ids, [position], [slot], [block_ids])
        inputs, logits_indices = self._flatten(chunks)
        token_ids, positions, sequence_indices = self._to_device(inputs)  # int64 [num_tokens] each
        slots = self._to_device([chunk.slot for chunk in chunks])  # int64 [num_chunks]
        block_tables = self.block_tables[slots]  # int64 [num_chunks, max_blocks_per_sequence]
        block_ids = block_tables[sequence_indices, positions // self.tokens_per_block]  # int64 [num_tokens]
        slot_mapping = block_ids * self.tokens_per_block + positions % self.tokens_per_block
        padding_slot = PADDING_BLOCK_ID * self.tokens_per_block
        logits, greedy_token_ids = self._launch(
            "context",
            token_ids,
            positions.clamp(min=0),
            torch.where(positions < 0, padding_slot, slot_mapping),
            block_tables,
            sequence_indices,
            self._to_device(logits_indices),
        )
        self.last_token_ids[slots] = greedy_token_ids
        return logits, greedy_token_ids

    def _flatten(self, chunks: Sequence[ContextChunk]) -> tuple[list[list[int]], list[int]]:
        """Concatenate all chunks, each padded to whole tiles.

        Returns [token ids, positions, sequence indices], which have num_tokens entries each, and the index of each
        chunk's last token. A padding token has position -1.
        """
        token_ids: list[int] = []
        positions: list[int] = []
        sequence_indices: list[int] = []
        logits_indices: list[int] = []
        for index, chunk in enumerate(chunks):
            num_tokens = len(chunk.token_ids)
            num_padding = -num_tokens % self.tokens_per_tile
            logits_indices.append(len(token_ids) + num_tokens - 1)
            token_ids += [*chunk.token_ids, *[0] * num_padding]
            positions += [
                *range(chunk.first_position, chunk.first_position + num_tokens),
                *[-1] * num_padding,
            ]
            sequence_indices += [index] * (num_tokens + num_padding)
        return [token_ids, positions, sequence_indices], logits_indices

    def run_generation(
        self,
        token_ids: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        block_ids: Sequence[Sequence[int]],
    ) -> tuple[Tensor, Tensor]:
        """Compute one token of each sequence; each argument has one entry for each sequence.

        A PLACEHOLDER_TOKEN_ID is read from `last_token_ids`. Returns the logits after each token, float32
        [num_sequences, vocab_size], and their greedy token ids, int64 [num_sequences], which also become the last
        tokens of the slots. With CUDA graphs the next generation step overwrites both tensors.
        """
        for slot, sequence_block_ids in zip(slots, block_ids, strict=True):
            self._update_block_table(slot, sequence_block_ids)
        num_sequences = len(token_ids)
        sequences = torch.tensor([token_ids, slots, positions])  # int64 [3, num_sequences]
        cuda_graph = self._cuda_graphs.get(padded_batch_size(num_sequences))
        if cuda_graph is None:
            return self.launch_generation(sequences.to(self.device))
        logits, greedy_token_ids = cuda_graph.replay(sequences)
        return logits[:num_sequences], greedy_token_ids[:num_sequences]

    def launch_generation(self, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """`run_generation` without a CUDA graph. sequences: int64 [3, num_sequences], on the device: token ids or
        PLACEHOLDER_TOKEN_ID, slots, positions."""
        is_single = sequences.shape[1] == 1 and "single" in self._graphs
        graph = "single" if is_single else "generation"
        return self._launch(graph, sequences, self.last_token_ids, self.block_tables)

    def set_last_token_ids(self, slots: Sequence[int], token_ids: Tensor) -> None:
        """Let the next step start from sampled tokens instead of the greedy ones. token_ids: int64 [len(slots)]."""
        self.last_token_ids[self._to_device(slots)] = token_ids

    def _update_block_table(self, slot: int, block_ids: Sequence[int]) -> None:
        """Copy a request's block table to the device if it has changed since the last copy."""
        if self._host_block_tables[slot] != block_ids:
            self.block_tables[slot, : len(block_ids)] = self._to_device(block_ids)
            self._host_block_tables[slot] = list(block_ids)

    def _to_device(self, values: Sequence[object]) -> Tensor:
        """`values` as an int64 tensor on the device. A copy to a GPU is asynchronous: the host does not wait for it."""
        tensor = torch.tensor(values)
        if self.device == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _launch(self, graph: str, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        logits, greedy_token_ids = self._graphs[graph].boxed_run([*inputs, *self.k_caches, *self.v_caches])
        return logits, greedy_token_ids


class CudaGraph:
    """A generation step for `batch_size` sequences as one launch instead of hundreds.

    A CUDA graph reads and writes the same memory at each replay: `sequences`, int64 [3, batch_size], and `outputs`,
    logits and greedy token ids.
    """

    def __init__(self, model_runner: ModelRunner, batch_size: int) -> None:
        padding_slot = model_runner.engine.limits.max_batch_size
        self.padding = torch.tensor([[0], [padding_slot], [0]]).expand(3, batch_size)
        self.sequences = self.padding.cuda()
        with torch.cuda.stream(torch.cuda.Stream()):
            # the first run loads kernels, which a graph cannot capture
            model_runner.launch_generation(self.sequences)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = model_runner.launch_generation(self.sequences)

    def replay(self, sequences: Tensor) -> tuple[Tensor, Tensor]:
        """sequences: int64 [3, num_sequences] on the host, with at most batch_size sequences.

        Returns logits and greedy token ids with batch_size rows; those after the first num_sequences are padding.
        """
        padded = torch.cat([sequences, self.padding[:, sequences.shape[1] :]], 1).pin_memory()
        self.sequences.copy_(padded, non_blocking=True)
        self.graph.replay()
        return self.outputs


def padded_batch_size(num_sequences: int) -> int:
    """The smallest CUDA graph batch size of at least `num_sequences`, or `num_sequences` itself if there is none."""
    return next((size for size in CUDA_GRAPH_BATCH_SIZES if size >= num_sequences), num_sequences)
