"""Wrong counts of a step's operations and bytes, each with the hint that names its mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labs.profile.formulas import (
    Config,
    attention_products,
    head_weights,
    kv_values,
    matrix_weights,
    mlp_weights,
    projection_weights,
    step_bytes,
    step_operations,
)

WrongFormulas = list[tuple[Callable[..., Any], str]]


def operations_of(weights: int, config: Config, batch: int, context: int) -> int:
    """Operations of a step with this number of weights in its matrices."""
    return 2 * (batch * weights + attention_products(config, batch, context))


def bytes_of(weights: int, config: Config, batch: int, context: int, itemsize: int) -> int:
    """Bytes of a step with this number of weights in its matrices."""
    return itemsize * (weights + kv_values(config, batch, context))


def without_tied_head(config: Config) -> int:
    return matrix_weights(config) - (head_weights(config) if config["tie_word_embeddings"] else 0)


def with_untied_embedding(config: Config) -> int:
    return matrix_weights(config) + (0 if config["tie_word_embeddings"] else head_weights(config))


def with_embedding(config: Config) -> int:
    return matrix_weights(config) + head_weights(config)


def without_head(config: Config) -> int:
    return matrix_weights(config) - head_weights(config)


def without_gate(config: Config) -> int:
    return matrix_weights(config) - config["num_hidden_layers"] * mlp_weights(config, 1)


def without_output(config: Config) -> int:
    query_size = config["num_attention_heads"] * config["head_dim"]
    return matrix_weights(config) - config["num_hidden_layers"] * config["hidden_size"] * query_size


def without_groups(config: Config) -> int:
    """As if every query head had a KV head of its own."""
    wide = {**config, "num_key_value_heads": config["num_attention_heads"]}
    return matrix_weights(wide)


def of_square_projections(config: Config) -> int:
    square = 4 * config["hidden_size"] ** 2
    return matrix_weights(config) + config["num_hidden_layers"] * (square - projection_weights(config))


def of_one_layer(config: Config) -> int:
    return projection_weights(config) + mlp_weights(config) + head_weights(config)


def grouped_attention(config: Config, batch: int, context: int) -> int:
    """Attention's products counted with the KV heads."""
    return kv_values(config, batch, context)


TIED_HEAD = (
    "Your count leaves out the head where it is tied to the embedding. Its product is computed all the same."
)
UNTIED_EMBEDDING = (
    "You count the embedding table where it is not tied to the head. A token looks up one row of it; no product "
    "reads the whole table."
)
NO_HEAD = "You left out the head, `vocab_size` × `hidden_size`: each new token needs its logits."
EMBEDDING = (
    "You count the embedding table as well. A token looks up one row of it; only the head is a product."
)
NO_GATE = "Your MLP has two matrices. A Llama has three: gate, up and down."
NO_OUTPUT = "You left out the attention's output projection, back from the heads to `hidden_size`."
NO_GROUPS = (
    "You gave the key and value projections as many heads as the queries. There are `num_key_value_heads`."
)
SQUARE = (
    "You took square attention matrices, `hidden_size` × `hidden_size`. Queries have `num_attention_heads` × "
    "`head_dim` values, keys and values `num_key_value_heads` × `head_dim`."
)
ONE_LAYER = "You counted the matrices of one layer. There are `num_hidden_layers`."

# the two about tied weights first: they agree with those about all models where a model is tied, or is not
WEIGHTS: list[tuple[Callable[[Config], int], str]] = [
    (without_tied_head, TIED_HEAD),
    (with_untied_embedding, UNTIED_EMBEDDING),
    (without_head, NO_HEAD),
    (with_embedding, EMBEDDING),
    (without_gate, NO_GATE),
    (without_output, NO_OUTPUT),
    (without_groups, NO_GROUPS),
    (of_square_projections, SQUARE),
    (of_one_layer, ONE_LAYER),
]

OPERATIONS: WrongFormulas = [
    (
        lambda config, batch, context: step_operations(config, batch, context) / 2,
        "That is half of it. A multiplication and an addition are two operations.",
    ),
    (
        lambda config, batch, context: step_operations(config, 1, context),
        "Those are the operations of one sequence. Each of the `batch` sequences multiplies its own vector.",
    ),
    (
        lambda config, batch, context: (
            2 * (matrix_weights(config) + attention_products(config, batch, context))
        ),
        "The weights multiply one vector in your count. They are read once, but they multiply the vector of each of "
        "the `batch` sequences.",
    ),
    (
        lambda config, batch, context: 2 * batch * matrix_weights(config),
        "Attention is missing: each query is multiplied by the keys, and the weights by the values, of `context` "
        "tokens.",
    ),
    (
        lambda config, batch, context: (
            2 * (batch * matrix_weights(config) + attention_products(config, 1, context))
        ),
        "You counted attention for one sequence. Each of the `batch` sequences reads keys and values of its own.",
    ),
    (
        lambda config, batch, context: (
            2 * (batch * matrix_weights(config) + attention_products(config, batch, context) // 2)
        ),
        "You counted one of attention's two products: scores are query × key, and then weights × value.",
    ),
    (
        lambda config, batch, context: (
            2 * (batch * matrix_weights(config) + grouped_attention(config, batch, context))
        ),
        "You counted attention with the KV heads. Query heads that share a KV head share its bytes, but each of them "
        "computes its own products.",
    ),
    (
        lambda config, batch, context: (
            2
            * (
                batch * matrix_weights(config)
                + attention_products(config, batch, context) // config["num_hidden_layers"]
            )
        ),
        "You counted attention in one layer. There are `num_hidden_layers`.",
    ),
    *(
        (lambda config, batch, context, of=weights: operations_of(of(config), config, batch, context), hint)
        for weights, hint in WEIGHTS
    ),
    (
        lambda config, batch, context: context * step_operations(config, batch, context),
        "That is a prompt of `context` tokens. A decode step computes one new token for each sequence.",
    ),
]

BYTES: WrongFormulas = [
    (
        lambda config, batch, context, size: (
            size * (batch * matrix_weights(config) + kv_values(config, batch, context))
        ),
        "You read the weights once for each sequence. They are read once for the whole batch: that is why batching "
        "pays.",
    ),
    (
        lambda config, batch, context, size: size * matrix_weights(config),
        "The KV cache is missing: each sequence reads the keys and values of its `context` tokens.",
    ),
    (
        lambda config, batch, context, size: size * kv_values(config, batch, context),
        "The weights are missing. Each step reads all of them.",
    ),
    (
        lambda config, batch, context, size: step_bytes(config, 1, context, size),
        "You read the KV cache of one sequence. Each of the `batch` sequences has its own.",
    ),
    (
        lambda config, batch, context, size: (
            size * (matrix_weights(config) + kv_values(config, batch, context) // 2)
        ),
        "Your KV cache is half of it. There are keys and values.",
    ),
    (
        lambda config, batch, context, size: (
            size * (matrix_weights(config) + attention_products(config, batch, context))
        ),
        "Your KV cache has a head for each query head. In grouped-query attention there are `num_key_value_heads`.",
    ),
    (
        lambda config, batch, context, size: (
            size * (matrix_weights(config) + kv_values(config, batch, context) // config["num_hidden_layers"])
        ),
        "Your KV cache has one layer. There are `num_hidden_layers`.",
    ),
    *(
        (
            lambda config, batch, context, size, of=weights: bytes_of(
                of(config), config, batch, context, size
            ),
            hint,
        )
        for weights, hint in WEIGHTS
    ),
    (
        lambda config, batch, context, size: step_bytes(config, batch, context, 1),
        "That counts values. Each has `itemsize` bytes.",
    ),
    (
        lambda config, batch, context, size: step_bytes(config, batch, context, 2),
        "2 bytes are right for bfloat16 only: use `itemsize`.",
    ),
    (
        lambda config, batch, context, size: step_bytes(config, batch, context, 4),
        "4 bytes are right for float32 only: use `itemsize`.",
    ),
    (lambda config, batch, context, size: 8 * step_bytes(config, batch, context, size), "Those are bits."),
]
