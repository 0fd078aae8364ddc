"""What goes where: each tensor of each rank as a stack of pieces of Hugging Face tensors.

One description serves all: conversion fills it, `plan` prints it, `join` reads it backwards. Names, fusing and cutting
follow TensorRT-LLM 1.2.1 (models/llama/convert.py, models/model_weights_loader.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from engineroom.checkpoint.config import ModelConfig
from engineroom.checkpoint.mapping import Mapping

Shape = tuple[int, ...]
FC, GATE = "gate_proj", "up_proj"  # the names cross: TensorRT-LLM's fc is Hugging Face's gate_proj


@dataclass(frozen=True)
class Piece:
    """Rows and columns of one Hugging Face tensor; `columns` is None for all of them, and for vectors."""

    source: str
    rows: range
    columns: range | None = None


@dataclass(frozen=True)
class Target:
    """One tensor of a rank file: its pieces stacked by rows; rows without a piece are zero (vocabulary padding)."""

    rank: int
    name: str
    shape: Shape
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """How a model is cut: mapping, and what becomes of the embedding table."""

    mapping: Mapping = field(default_factory=Mapping)
    use_parallel_embedding: bool = False
    embedding_sharding_dim: int = 0


def sources(model: ModelConfig) -> dict[str, Shape]:
    """Name and shape of every tensor that the Hugging Face checkpoint must have."""
    h, d = model.hidden_size, model.head_size
    q, kv, ffn = model.num_attention_heads * d, model.num_key_value_heads * d, model.intermediate_size
    found: dict[str, Shape] = {"model.embed_tokens.weight": (model.vocab_size, h), "model.norm.weight": (h,)}
    if not model.tie_word_embeddings:
        found["lm_head.weight"] = (model.vocab_size, h)
    linear = {
        "self_attn.q_proj": (q, h, model.attn_bias),
        "self_attn.k_proj": (kv, h, model.attn_bias),
        "self_attn.v_proj": (kv, h, model.attn_bias),
        "self_attn.o_proj": (h, q, model.dense_bias),
        "mlp.gate_proj": (ffn, h, model.mlp_bias),
        "mlp.up_proj": (ffn, h, model.mlp_bias),
        "mlp.down_proj": (h, ffn, model.mlp_bias),
    }
    norms = {"input_layernorm": h, "post_attention_layernorm": h}
    if model.qk_layernorm:
        norms |= {"self_attn.q_norm": d, "self_attn.k_norm": d}
    for layer in range(model.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        found |= {f"{prefix}{name}.weight": (size,) for name, size in norms.items()}
        for name, (out, inp, bias) in linear.items():
            found[f"{prefix}{name}.weight"] = (out, inp)
            if bias:
                found[f"{prefix}{name}.bias"] = (out,)
    return found


def plan(model: ModelConfig, layout: Layout) -> list[Target]:
    """Every tensor of every rank, rank by rank. Raises CheckpointError when the model cannot be cut that way."""
    model.check(layout.mapping, layout.use_parallel_embedding, layout.embedding_sharding_dim)
    return [
        target for rank in range(layout.mapping.world_size) for target in Rank(model, layout, rank).targets()
    ]


@dataclass(frozen=True)
class Rank:
    """The share of one rank."""

    model: ModelConfig
    layout: Layout
    rank: int

    def targets(self) -> Iterator[Target]:
        mapping = self.layout.mapping
        if mapping.is_first_pp_rank(self.rank):
            yield self.embedding()
        for local, layer in enumerate(mapping.pp_layers(self.rank, self.model.num_hidden_layers)):
            yield from self.layer(f"transformer.layers.{local}.", f"model.layers.{layer}.")
        if mapping.is_last_pp_rank(self.rank):
            yield self.whole("transformer.ln_f.weight", "model.norm.weight", self.model.hidden_size)
            source = "model.embed_tokens" if self.model.tie_word_embeddings else "lm_head"
            yield self.vocabulary("lm_head.weight", f"{source}.weight")

    def layer(self, to: str, source: str) -> Iterator[Target]:
        """One decoder layer; the number in `to` counts from 0 in each pipeline stage."""
        model = self.model
        norms = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}
        for name, theirs in norms.items():
            yield self.whole(f"{to}{name}.weight", f"{source}{theirs}.weight", model.hidden_size)
        if model.qk_layernorm:
            for x in "qk":
                theirs = f"{source}self_attn.{x}_norm.weight"
                yield self.whole(f"{to}attention.{x}_layernorm.weight", theirs, model.head_size)
        for kind in ("weight", "bias") if model.attn_bias else ("weight",):
            yield self.qkv(f"{to}attention.qkv.{kind}", f"{source}self_attn.", kind)
        q = model.num_attention_heads * model.head_size
        yield from self.row(f"{to}attention.dense.", f"{source}self_attn.o_proj.", q, model.dense_bias)
        for name, theirs in (("fc", FC), ("gate", GATE)):
            yield from self.column(f"{to}mlp.{name}.", f"{source}mlp.{theirs}.")
        yield from self.row(
            f"{to}mlp.proj.", f"{source}mlp.down_proj.", model.intermediate_size, model.mlp_bias
        )

    def qkv(self, name: str, prefix: str, kind: str) -> Target:
        """[q; k; v] of this rank's heads. With more ranks than KV heads, neighbours hold copies of the same head."""
        model, tp, r = self.model, self.layout.mapping.tp_size, self.layout.mapping.tp_rank(self.rank)
        d = model.head_size
        kv = range(r * model.num_key_value_heads // tp, -(-(r + 1) * model.num_key_value_heads // tp))
        heads = {"q": _share(model.num_attention_heads, tp, r), "k": kv, "v": kv}
        pieces = [Piece(f"{prefix}{x}_proj.{kind}", range(h.start * d, h.stop * d)) for x, h in heads.items()]
        return self.stack(name, pieces, model.hidden_size if kind == "weight" else None)

    def column(self, name: str, source: str) -> Iterator[Target]:
        """Column parallel: the output rows are dealt out, of the bias too."""
        rows = self.share(self.model.intermediate_size)
        yield self.stack(f"{name}weight", [Piece(f"{source}weight", rows)], self.model.hidden_size)
        if self.model.mlp_bias:
            yield self.stack(f"{name}bias", [Piece(f"{source}bias", rows)], None)

    def row(self, name: str, source: str, inputs: int, bias: bool) -> Iterator[Target]:
        """Row parallel: the input columns are dealt out; the bias is whole, as it is added once after the sum."""
        columns, h = self.share(inputs), self.model.hidden_size
        piece = Piece(f"{source}weight", range(h), columns)
        yield Target(self.rank, f"{name}weight", (h, len(columns)), (piece,))
        if bias:
            yield self.whole(f"{name}bias", f"{source}bias", h)

    def whole(self, name: str, source: str, size: int) -> Target:
        return Target(self.rank, name, (size,), (Piece(source, range(size)),))

    def vocabulary(self, name: str, source: str) -> Target:
        """Rows of the vocabulary, padded with zeros to a multiple of tp_size."""
        vocab, tp = self.model.vocab_size, self.layout.mapping.tp_size
        each = -(-vocab // tp)
        rows = range(each * self.layout.mapping.tp_rank(self.rank), vocab)[:each]
        return Target(self.rank, name, (each, self.model.hidden_size), (Piece(source, rows),) if rows else ())

    def embedding(self) -> Target:
        name, source = "transformer.vocab_embedding.weight", "model.embed_tokens.weight"
        vocab, h = self.model.vocab_size, self.model.hidden_size
        if not self.layout.use_parallel_embedding:
            return Target(self.rank, name, (vocab, h), (Piece(source, range(vocab)),))
        if self.layout.embedding_sharding_dim == 0:
            return self.vocabulary(name, source)
        columns = self.share(h)
        return Target(self.rank, name, (vocab, len(columns)), (Piece(source, range(vocab), columns),))

    def share(self, size: int) -> range:
        return _share(size, self.layout.mapping.tp_size, self.layout.mapping.tp_rank(self.rank))

    def stack(self, name: str, pieces: list[Piece], columns: int | None) -> Target:
        rows = sum(len(piece.rows) for piece in pieces)
        return Target(self.rank, name, (rows,) if columns is None else (rows, columns), tuple(pieces))


def _share(size: int, parts: int, part: int) -> range:
    return range(size // parts * part, size // parts * (part + 1))
