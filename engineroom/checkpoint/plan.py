"""What a conversion writes: each tensor of each rank, as slices of Hugging Face tensors stacked by rows.

`convert` fills these tensors, the `plan` command prints them, and `join` reads them back. Names, fusing and sharding
follow TensorRT-LLM 1.2.1 (models/llama/convert.py, models/model_weights_loader.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engineroom.checkpoint.config import ModelConfig
from engineroom.checkpoint.mapping import Sharding

Shape = tuple[int, ...]
FC, GATE = "gate_proj", "up_proj"  # TensorRT-LLM's fc is Hugging Face's gate_proj, and its gate is up_proj


@dataclass(frozen=True)
class SourceSlice:
    """Rows and columns of the Hugging Face tensor `source`; `columns` is None for all columns, and for a vector."""

    source: str
    rows: range
    columns: range | None = None


@dataclass(frozen=True)
class RankTensor:
    """One tensor of a rank file: its slices stacked by rows, and zeros below them (the vocabulary's padding)."""

    rank: int
    name: str
    shape: Shape
    slices: tuple[SourceSlice, ...]


def source_shapes(model: ModelConfig) -> dict[str, Shape]:
    """Name and shape of every tensor that the Hugging Face checkpoint must have; a matrix is [outputs, inputs]."""
    hidden, head_size, ffn = model.hidden_size, model.head_size, model.intermediate_size
    q, kv = model.num_attention_heads * head_size, model.num_key_value_heads * head_size
    projections = {
        "self_attn.q_proj": (q, hidden, model.attn_bias),
        "self_attn.k_proj": (kv, hidden, model.attn_bias),
        "self_attn.v_proj": (kv, hidden, model.attn_bias),
        "self_attn.o_proj": (hidden, q, model.dense_bias),
        "mlp.gate_proj": (ffn, hidden, model.mlp_bias),
        "mlp.up_proj": (ffn, hidden, model.mlp_bias),
        "mlp.down_proj": (hidden, ffn, model.mlp_bias),
    }
    layer: dict[str, Shape] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    if model.qk_layernorm:
        layer |= {"self_attn.q_norm.weight": (head_size,), "self_attn.k_norm.weight": (head_size,)}
    for name, (outputs, inputs, has_bias) in projections.items():
        layer[f"{name}.weight"] = (outputs, inputs)
        if has_bias:
            layer[f"{name}.bias"] = (outputs,)
    shapes: dict[str, Shape] = {
        "model.embed_tokens.weight": (model.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not model.tie_word_embeddings:
        shapes["lm_head.weight"] = (model.vocab_size, hidden)
    for index in range(model.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def plan(model: ModelConfig, sharding: Sharding) -> list[RankTensor]:
    """Every tensor of every rank, rank by rank. Raises CheckpointError when the model cannot be sharded that way."""
    model.check(sharding)
    tensors: list[RankTensor] = []
    for rank in range(sharding.mapping.world_size):
        tensors += RankPlan(model, sharding, rank).tensors()
    return tensors


@dataclass(frozen=True)
class RankPlan:
    """The tensors of one rank."""

    model: ModelConfig
    sharding: Sharding
    rank: int

    def tensors(self) -> Iterator[RankTensor]:
        mapping = self.sharding.mapping
        if mapping.is_first_pp_rank(self.rank):
            yield self.embedding()
        for local, layer in enumerate(mapping.pp_layers(self.rank, self.model.num_hidden_layers)):
            yield from self.layer(f"transformer.layers.{local}.", f"model.layers.{layer}.")
        if mapping.is_last_pp_rank(self.rank):
            yield self.unsharded("transformer.ln_f.weight", "model.norm.weight", self.model.hidden_size)
            source = "model.embed_tokens" if self.model.tie_word_embeddings else "lm_head"
            yield self.vocabulary("lm_head.weight", f"{source}.weight")

    def layer(self, prefix: str, source: str) -> Iterator[RankTensor]:
        """One decoder layer.

        `prefix` has its index within the pipeline stage, from 0; `source` has its index within the whole model.
        """
        model = self.model
        norms = {"input_layernorm": "input_layernorm", "post_layernorm": "post_attention_layernorm"}
        for name, source_name in norms.items():
            yield self.unsharded(f"{prefix}{name}.weight", f"{source}{source_name}.weight", model.hidden_size)
        if model.qk_layernorm:
            for projection in ("q", "k"):
                target_name = f"{prefix}attention.{projection}_layernorm.weight"
                source_name = f"{source}self_attn.{projection}_norm.weight"
                yield self.unsharded(target_name, source_name, model.head_size)
        for kind in ("weight", "bias") if model.attn_bias else ("weight",):
            yield self.qkv(f"{prefix}attention.qkv.{kind}", f"{source}self_attn.", kind)
        q = model.num_attention_heads * model.head_size
        yield from self.row(f"{prefix}attention.dense.", f"{source}self_attn.o_proj.", q, model.dense_bias)
        for name, source_name in (("fc", FC), ("gate", GATE)):
            yield from self.column(f"{prefix}mlp.{name}.", f"{source}mlp.{source_name}.")
        ffn = model.intermediate_size
        yield from self.row(f"{prefix}mlp.proj.", f"{source}mlp.down_proj.", ffn, model.mlp_bias)

    def qkv(self, name: str, source: str, kind: str) -> RankTensor:
        """The rows of q, k and v for this rank's heads. With more ranks than KV heads, ranks share copies of a KV head.

        `kind`: "weight" or "bias".
        """
        model, tp_size = self.model, self.sharding.mapping.tp_size
        tp_rank = self.sharding.mapping.tp_rank(self.rank)
        kv_begin = tp_rank * model.num_key_value_heads // tp_size
        kv_end = -(-(tp_rank + 1) * model.num_key_value_heads // tp_size)
        heads = {"q": self.share(model.num_attention_heads), "k": range(kv_begin, kv_end)}
        heads["v"] = heads["k"]
        slices = tuple(
            SourceSlice(
                f"{source}{projection}_proj.{kind}",
                range(indices.start * model.head_size, indices.stop * model.head_size),
            )
            for projection, indices in heads.items()
        )
        rows = sum(len(source_slice.rows) for source_slice in slices)
        shape = (rows, model.hidden_size) if kind == "weight" else (rows,)
        return RankTensor(self.rank, name, shape, slices)

    def column(self, name: str, source: str) -> Iterator[RankTensor]:
        """Column parallel: the output rows are sharded, and so is the bias."""
        rows = self.share(self.model.intermediate_size)
        shape = (len(rows), self.model.hidden_size)
        yield RankTensor(self.rank, f"{name}weight", shape, (SourceSlice(f"{source}weight", rows),))
        if self.model.mlp_bias:
            yield RankTensor(self.rank, f"{name}bias", (len(rows),), (SourceSlice(f"{source}bias", rows),))

    def row(self, name: str, source: str, inputs: int, bias: bool) -> Iterator[RankTensor]:
        """Row parallel: the input columns are sharded. The bias is not: it is added once, after the all-reduce."""
        columns, outputs = self.share(inputs), self.model.hidden_size
        weight = SourceSlice(f"{source}weight", range(outputs), columns)
        yield RankTensor(self.rank, f"{name}weight", (outputs, len(columns)), (weight,))
        if bias:
            yield self.unsharded(f"{name}bias", f"{source}bias", outputs)

    def unsharded(self, name: str, source: str, size: int) -> RankTensor:
        """A vector that every rank holds whole."""
        return RankTensor(self.rank, name, (size,), (SourceSlice(source, range(size)),))

    def vocabulary(self, name: str, source: str) -> RankTensor:
        """This rank's rows of the vocabulary, which is padded with zeros to a multiple of tp_size."""
        vocab_size, mapping = self.model.vocab_size, self.sharding.mapping
        rows_per_rank = -(-vocab_size // mapping.tp_size)
        rows = range(rows_per_rank * mapping.tp_rank(self.rank), vocab_size)[:rows_per_rank]
        slices = (SourceSlice(source, rows),) if rows else ()
        return RankTensor(self.rank, name, (rows_per_rank, self.model.hidden_size), slices)

    def embedding(self) -> RankTensor:
        name, source = "transformer.vocab_embedding.weight", "model.embed_tokens.weight"
        rows, hidden = range(self.model.vocab_size), self.model.hidden_size
        if not self.sharding.use_parallel_embedding:
            return RankTensor(self.rank, name, (len(rows), hidden), (SourceSlice(source, rows),))
        if self.sharding.embedding_sharding_dim == 0:
            return self.vocabulary(name, source)
        columns = self.share(hidden)
        return RankTensor(self.rank, name, (len(rows), len(columns)), (SourceSlice(source, rows, columns),))

    def share(self, size: int) -> range:
        """This rank's range of `size` rows, columns or heads; tp_size divides `size`."""
        part = size // self.sharding.mapping.tp_size
        begin = part * self.sharding.mapping.tp_rank(self.rank)
        return range(begin, begin + part)
