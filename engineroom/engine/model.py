"""The decoder that is compiled. layers.py comes before it in the build, compile.py after it.

Its parameters have the names of a TensorRT-LLM checkpoint. Only the two halves of each MLP are joined (`fuse`); every
other tensor loads as it is.

Two graphs are exported: `Decoder` takes several tokens of each sequence (context), `Generation` takes one. Both read
the KV cache and write to it in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engineroom.checkpoint import ModelConfig
from engineroom.engine.config import Limits
from engineroom.engine.kernels import cpu
from engineroom.engine.layers import AttentionMetadata, DecoderLayer, Linear, RmsNorm

EMBEDDING = "transformer.vocab_embedding"
PLACEHOLDER_TOKEN_ID = -1  # a token that the device has sampled and the host has not read yet
ARGMAX_PART = 128  # logits that the first step of argmax_rows reduces to their maximum
KvCache = list[Tensor]  # one [num_blocks, tokens_per_block, num_kv_heads, head_size] per layer


class Transformer(nn.Module):
    """The embedding, the layers and the last norm."""

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.vocab_embedding = Linear(model.hidden_size, model.vocab_size)
        self.layers = nn.ModuleList(DecoderLayer(model) for _ in range(model.num_hidden_layers))
        self.ln_f = RmsNorm(model.hidden_size, model.norm_epsilon)


class Decoder(nn.Module):
    """One rank of a checkpoint, with uninitialised parameters in the checkpoint's dtype; the context graph."""

    inv_freq: Tensor  # float32 [head_size / 2] in every dtype: rounded frequencies give wrong angles at high positions

    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        self.model = model
        self.transformer = Transformer(model)
        self.lm_head = Linear(model.hidden_size, model.vocab_size)
        self.requires_grad_(False).to(getattr(torch, model.dtype))
        self.register_buffer("inv_freq", model.inverse_frequencies(), persistent=False)

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        sequence_indices: Tensor,
        logits_indices: Tensor,
        k_caches: KvCache,
        v_caches: KvCache,
        is_context: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Logits float32 [num_logits, vocab_size], and the greedy token of each row, int64 [num_logits].

        token_ids int64 [num_tokens]; logits_indices int64 [num_logits]: the tokens whose logits are computed. The
        other tensors are those of `AttentionMetadata`.
        """
        x = F.embedding(token_ids, self.transformer.vocab_embedding.weight)  # [num_tokens, hidden_size]
        angles = positions[:, None].float() * self.inv_freq  # [num_tokens, head_size / 2]
        rotary = (angles.cos()[:, None].to(x.dtype), angles.sin()[:, None].to(x.dtype))
        metadata = AttentionMetadata(is_context, slot_mapping, block_tables, sequence_indices, positions)
        for layer, k_cache, v_cache in zip(self.transformer.layers, k_caches, v_caches, strict=True):
            x = layer(x, rotary, metadata, k_cache, v_cache)
        logits = self.lm_head(x[logits_indices], self.transformer.ln_f).float()
        return logits, argmax_rows(logits)


class Generation(nn.Module):
    """The generation graph: one token of each sequence. It reads block tables and newest tokens on the device."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        sequences: Tensor,
        last_token_ids: Tensor,
        slot_block_tables: Tensor,
        k_caches: KvCache,
        v_caches: KvCache,
    ) -> tuple[Tensor, Tensor]:
        """Logits float32 [num_sequences, vocab_size], and the greedy token of each row, int64 [num_sequences].

        sequences int64 [3, num_sequences]: each sequence's token id or PLACEHOLDER_TOKEN_ID, its slot, its position.
        last_token_ids int64 [num_slots]: each slot's newest token; it takes the place of a placeholder, and the greedy
        tokens are written to it. slot_block_tables int64 [num_slots, max_blocks_per_sequence].
        """
        token_ids, slots, positions = sequences.unbind()
        token_ids = torch.where(token_ids == PLACEHOLDER_TOKEN_ID, last_token_ids[slots], token_ids)
        block_tables = slot_block_tables[slots]  # [num_sequences, max_blocks_per_sequence]
        indices = torch.arange(sequences.shape[1], device=sequences.device)
        tokens_per_block = k_caches[0].shape[1]
        block_ids = block_tables.gather(1, (positions // tokens_per_block)[:, None])[:, 0]
        slot_mapping = block_ids * tokens_per_block + positions % tokens_per_block
        logits, greedy_token_ids = self.decoder(
            token_ids,
            positions,
            slot_mapping,
            block_tables,
            indices,
            indices,
            k_caches,
            v_caches,
            is_context=False,
        )
        last_token_ids.index_put_((slots,), greedy_token_ids)
        return logits, greedy_token_ids


def meta_decoder(model: ModelConfig, packed: bool = False) -> Decoder:
    """The decoder on the meta device, which holds shapes and dtypes but no values.

    `packed`: the weights of all products are in panels (kernels/cpu.py).
    """
    with torch.device("meta"):
        decoder = Decoder(model).eval()
        for name, module in decoder.named_modules():
            if packed and isinstance(module, Linear) and name != EMBEDDING:
                module.weight = nn.Parameter(cpu.pack(module.weight), requires_grad=False)
    return decoder


def fuse(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a rank file under this model's names: each mlp.fused_fc is mlp.gate stacked on mlp.fc.

    mlp.gate and mlp.fc [intermediate_size, hidden_size] -> mlp.fused_fc [2 * intermediate_size, hidden_size]; a bias
    likewise.
    """
    fused: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if ".mlp.gate." in name:
            fc = tensors[name.replace(".gate.", ".fc.")]
            fused[name.replace(".gate.", ".fused_fc.")] = torch.cat([tensor, fc])
        elif ".mlp.fc." not in name:
            fused[name] = tensor
    return fused


def argmax_rows(logits: Tensor) -> Tensor:
    """The index of each row's largest logit: logits [rows, vocab_size] -> int64 [rows].

    It takes two steps, since torch.argmax leaves one long row to a few of a GPU's multiprocessors.
    """
    if logits.shape[1] % ARGMAX_PART:
        return logits.argmax(-1)
    maxima, offsets = logits.unflatten(1, (-1, ARGMAX_PART)).max(-1)  # [rows, vocab_size / ARGMAX_PART]
    part = maxima.argmax(-1, keepdim=True)  # [rows, 1]
    return (part * ARGMAX_PART + offsets.gather(1, part))[:, 0]


@dataclass(frozen=True)
class KvCacheShape:
    """The KV cache of an engine: a key and a value tensor per layer, [num_blocks, tokens_per_block, num_kv_heads,
    head_size] each."""

    num_layers: int
    tokens_per_block: int
    num_kv_heads: int
    head_size: int
    dtype: torch.dtype
    device: str

    @classmethod
    def of(cls, model: ModelConfig, limits: Limits, device: str) -> KvCacheShape:
        """The KV cache of an engine for `model` on `device`, "cpu" or "cuda"."""
        return cls(
            num_layers=model.num_hidden_layers,
            tokens_per_block=limits.tokens_per_block,
            num_kv_heads=model.num_key_value_heads,
            head_size=model.head_size,
            dtype=getattr(torch, model.dtype),
            device=device,
        )

    def allocate(self, num_blocks: int) -> tuple[KvCache, KvCache]:
        """The key tensors and the value tensors of all layers, filled with zeros."""
        shape = (num_blocks, self.tokens_per_block, self.num_kv_heads, self.head_size)
        k_caches = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(self.num_layers)]
        v_caches = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(self.num_layers)]
        return k_caches, v_caches

    def bytes_per_block(self) -> int:
        """Bytes of one block's keys and values in all layers."""
        values = 2 * self.num_layers * self.tokens_per_block * self.num_kv_heads * self.head_size
        return values * self.dtype.itemsize
