# %% [markdown]
# # 04 · Convert a checkpoint
#
# **What does conversion do to the weights?**
#
# vLLM reads a Hugging Face folder as it is. An engine builder does not: it wants one file of weights per GPU, under
# its own names, already fused and sharded. In this lesson you do the interesting parts by hand and then convert the
# whole model. You also see a conversion that went wrong. It looks perfectly fine, until you ask it a question.
#
# ## What you will be able to do
#
# - read a TensorRT-LLM checkpoint: its names, its ranks, its config
# - fuse q, k and v, and shard them for tensor parallelism
# - compute what it costs to use more GPUs than the model has KV heads
# - tell a right conversion from a wrong one
#
# ## Time and money

# %% tags=["parameters"]
model = "course"
tp_size = 2

# %%
import subprocess
import sys

import torch
from transformers import AutoTokenizer

from engineroom import checkpoint, trtllm
from engineroom.kit import record
from engineroom.vllm.model import local_folder
from labs.convert_checkpoint import plots
from labs.convert_checkpoint.planted import fuse_then_shard
from labs.kit.check import check, needs
from labs.kit.scratch import scratch_folder
from labs.preflight import time_and_money

print(time_and_money(4))
model_dir = local_folder(model)
scratch = scratch_folder("lesson-04")  # every run of a cell writes into a fresh folder in it

# %% [markdown]
# ## What is in the folder
#
# A Hugging Face folder holds a config and tensors; each tensor has a name, a dtype and a shape. The weight of a linear
# layer is stored as `[outputs, inputs]`. Here are the tensors of one layer.

# %%
# NBVAL_CHECK_OUTPUT
source = checkpoint.open_model(model_dir)
print(source.model)
for name, tensor in source.tensors.items():
    if ".layers.0." in name:
        print(f"{name:<50} {tensor}")

# %% [markdown]
# For each token, attention computes a *query* q (what the token looks for), a *key* k (by which other tokens find it)
# and a *value* v (what it tells them). It compares the query of one token with the keys of all tokens before it, and
# mixes their values accordingly. Three projections compute q, k and v: three small matrix products per layer. Stacked,
# they become one larger product, and GPUs are better at one large product than at three small ones. So the converter
# stacks the three weights first.
#
# This model has 8 query heads and 4 KV heads: two query heads share one KV head (grouped-query attention). Therefore k
# and v have half as many rows as q.
#
# ### Exercise: fuse q, k and v
#
# TensorRT-LLM's `attention.qkv.weight` holds all rows of q, then all rows of k, then all rows of v.

# %%
def fuse_qkv(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q [heads * head_size, hidden], k and v [kv_heads * head_size, hidden] -> one tensor."""
    ### BEGIN SOLUTION
    return torch.cat([q, k, v])
    ### STARTER
    # ...
    ### END SOLUTION


check("04.fuse", fuse_qkv)

# %% [markdown]
# ## One weight, many GPUs
#
# With **tensor parallelism** every GPU (a *rank*) computes a part of each layer. Attention is sharded by heads: a rank
# gets some query heads and the KV heads that belong to them. The picture follows one row of `q_proj`, the black
# line, to its place on one, two and four ranks.

# %%
plots.row_placement(source.model, row=300)

# %% [markdown]
# Each bar is the `attention.qkv.weight` of one rank. Every bar has a blue, an orange and a green part: a rank compares
# its queries with its own keys, mixes its own values, and needs nothing from the other ranks for that.
#
# ### Exercise: shard it
#
# Write the function that returns the shard of one rank. With `tp_size` 1 it is the fused tensor.

# %%
def shard_qkv(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tp_size: int, tp_rank: int) -> torch.Tensor:
    """The rows of attention.qkv.weight that rank `tp_rank` of `tp_size` holds."""
    ### BEGIN SOLUTION
    return fuse_qkv(*(x.chunk(tp_size)[tp_rank] for x in (q, k, v)))
    ### STARTER
    # ...  # torch.Tensor.chunk(n) splits dimension 0 into n equal parts
    ### END SOLUTION


shard_result = check("04.shard", shard_qkv)

# %% [markdown]
# ## The whole model
#
# The flags are those of NVIDIA's `convert_checkpoint.py`. The program is ours. It streams the weights block by block,
# so it converts a model of any size in little memory, and it needs no GPU.

# %%
flags = {"model_dir": model_dir, "output_dir": scratch.fresh("tp2"), "dtype": "bfloat16", "tp_size": tp_size}
line = [f"--{name}={value}" for name, value in flags.items()]
program = [sys.executable, "-m", "engineroom.checkpoint", "convert"]
conversion = subprocess.run([*program, *line], check=True, stdout=subprocess.PIPE, text=True)
print(conversion.stdout.strip().replace(str(scratch.path), "…"))

# %% [markdown]
# Converting a model of 8 billion parameters takes about as long as copying its files, and needs hardly any memory:

# %%
record.find("convert-8b-tp1-time")

# %%
record.find("convert-8b-tp1-memory")

# %% [markdown]
# The checkpoint is one `config.json` and one file per rank. `inspect` lists the tensors of a rank; layers with equal
# shapes are shown once.

# %%
# NBVAL_CHECK_OUTPUT
right = checkpoint.open_checkpoint(scratch.path / "tp2")
print(checkpoint.inspect(right, rank=0))

# %% [markdown]
# - `qkv`, `fc` and `gate` have fewer rows: they are **column parallel**. Each rank computes some of the outputs.
# - `dense` and `proj` have fewer columns: they are **row parallel**. Each rank has some of the inputs, and the results
#   are summed over the ranks. That sum is the all-reduce you will meet in profiles.
# - Norms and the embedding are whole on every rank. The `lm_head` is sharded by vocabulary.
#
# A linear layer computes y = W x. The picture shows both ways to shard W, in the MLP of one layer: above W is its
# input x, beside it its output y, each in the colour of the rank that has it.

# %%
fc_shapes, proj_shapes = (
    [rank[f"transformer.layers.0.mlp.{name}.weight"].shape for rank in right.ranks] for name in ("fc", "proj")
)
plots.parallel(fc_shapes, proj_shapes)

# %% [markdown]
# The left layer's output is sharded just as the right layer needs its input. So the MLP needs only one sum over the
# ranks, at its end.
#
# Does your function agree with the file?

# %%
q, k, v = (checkpoint.load(source.tensors[f"model.layers.0.self_attn.{x}_proj.weight"]) for x in "qkv")
needs("04.shard", shard_result or None)
in_file = right.tensor(1, "transformer.layers.0.attention.qkv.weight")
print("rank 1, layer 0:", "equal" if torch.equal(shard_qkv(q, k, v, tp_size, 1), in_file) else "different")

# %% [markdown]
# ### Exercise: the crossed names
#
# The MLP multiplies the outputs of two projections. Hugging Face calls them `gate_proj` and `up_proj`; the rank files
# call them `mlp.fc` and `mlp.gate`. Which is which? Compare the tensors.

# %%
fc = right.tensor(0, "transformer.layers.0.mlp.fc.weight")
gate = right.tensor(0, "transformer.layers.0.mlp.gate.weight")
mlp = "model.layers.0.mlp."
theirs = {x: checkpoint.load(source.tensors[f"{mlp}{x}.weight"]) for x in ("gate_proj", "up_proj")}
### BEGIN SOLUTION
rows = len(fc)
fc_is = next(name for name, tensor in theirs.items() if torch.equal(tensor[:rows], fc))
gate_is = next(name for name, tensor in theirs.items() if torch.equal(tensor[:rows], gate))
### STARTER
# fc_is = ...  # a name in quotes; rank 0 holds the upper part of the rows
# gate_is = ...
### END SOLUTION
check("04.names", fc_is, gate_is)

# %% [markdown]
# Remember this one. If you write a converter from the names alone, you get it wrong, and every shape still fits.
#
# ## More ranks than KV heads
#
# Take eight ranks and four KV heads. Every rank needs a KV head for its queries, so each KV head is stored on two
# ranks. That costs memory twice: for the copied weights now, and for the copied keys and values in the KV cache later.
#
# ### Exercise: the price of copies
#
# When `tp_size` exceeds the number of KV heads, how many extra bytes of weights do all ranks together store? Count the
# weights of k and v in all layers, in bfloat16, without biases. `model` has `num_key_value_heads`, `head_size`,
# `hidden_size` and `num_hidden_layers`.

# %%
def extra_bytes(model: checkpoint.ModelConfig, tp_size: int) -> int:
    ### BEGIN SOLUTION
    copies = max(0, tp_size - model.num_key_value_heads)
    return 2 * copies * model.head_size * model.hidden_size * model.num_hidden_layers * 2
    ### STARTER
    # ...
    ### END SOLUTION


def qkv_bytes(tp_size: int) -> int:
    """Measured: bytes of all attention.qkv.weight in all rank files."""
    sharding = checkpoint.Sharding(checkpoint.Mapping(tp_size))
    output_dir = scratch.fresh(f"ranks{tp_size}")
    checkpoint.convert(model_dir, output_dir, sharding=sharding, dtype="bfloat16")
    ranks = checkpoint.open_checkpoint(output_dir).ranks
    return sum(tensor.nbytes for rank in ranks for name, tensor in rank.items() if "qkv.weight" in name)


measured = qkv_bytes(8) - qkv_bytes(1)
check("04.copies", extra_bytes, source.model, 8, measured)

# %% [markdown]
# ## Is it right?
#
# The next cell computes logits straight from the rank files: each rank computes its part, and the parts are summed, as
# on GPUs. It does the same with a second checkpoint, which somebody else converted. The second one has the same names,
# shapes and dtypes.

# %%
suspect = checkpoint.open_checkpoint(fuse_then_shard(scratch.path / "tp2", scratch.fresh("suspect")))
shapes = [{name: str(tensor) for name, tensor in converted.ranks[0].items()} for converted in (right, suspect)]
print("same names, shapes and dtypes:", shapes[0] == shapes[1])

tokenizer = AutoTokenizer.from_pretrained(model_dir)
chat = [{"role": "user", "content": "What is goodput?"}]
tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
pair = {"ours": right, "suspect": suspect}
for name, converted in pair.items():
    answer = checkpoint.ShardedModel(converted).greedy(tokens, 40, stop=tokenizer.eos_token_id)
    print(f"{name + ':':<9}{tokenizer.decode(answer, skip_special_tokens=True)}")

# %%
original = checkpoint.reference_logits(model_dir, tokens)
logits = {name: checkpoint.ShardedModel(converted).logits(tokens) for name, converted in pair.items()}
plots.logits(original, logits)

# %% [markdown]
# On the left, every dot is on the line: the conversion changed nothing that matters. On the right is noise. Nothing
# raised an error, no shape was wrong, and a builder would compile this checkpoint without a warning. `diff` finds the
# tensors:

# %%
# NBVAL_CHECK_OUTPUT
for difference in checkpoint.diff(right, suspect)[:4]:
    print(difference)

# %% [markdown]
# Only `qkv` differs: it was fused before it was sharded. You know this mistake from the exercise.
#
# Make it a habit: after every conversion, compare the logits of one prompt with the original's. It takes seconds.
#
# ## The cost
#
# Sharding runs a model that fits on no single GPU, but every layer now waits twice for a sum over all ranks, and some
# KV heads are stored more than once. The converted checkpoint is a second copy of the weights: it takes disk space, and
# somebody has to convert again whenever the original changes.
#
# ## On an H100
#
# NVIDIA's own converter takes the same flags. Where TensorRT-LLM 1.2.1 is installed, the next cells run it and compare
# its checkpoint with ours, tensor by tensor. Elsewhere they only show the command.

# %%
family = "qwen" if source.model.architecture.startswith("Qwen") else "llama"
command = trtllm.convert(family, **flags | {"output_dir": scratch.fresh("nvidia")})
print(str(command).replace(str(scratch.path), "…").replace(str(model_dir), "models/course"))

# %%
if command.available():
    subprocess.run(command.argv, check=True)
    for difference in checkpoint.diff(right, checkpoint.open_checkpoint(scratch.path / "nvidia")):
        print(difference)
else:
    print("TensorRT-LLM is not on this machine: NVIDIA's converter was not run.")

# %% [markdown]
# On every other machine, this course's tests stand in for that comparison: they export tiny models of each family with
# NVIDIA's ModelOpt 0.37.0, the release that TensorRT-LLM 1.2.1 pins, and compare every tensor with ours, bit by bit.
#
# `trtllm-build` compiles such a checkpoint for one GPU type. That path ended in July 2026, when NVIDIA
# removed the engine backend; 1.2.1 is its last stable release. Its successor reads Hugging Face folders, as vLLM
# does. Fusing and sharding did not go away: they now happen while the model loads.
#
# ## An open challenge
#
# Logits find a fault, but how many tokens does it take? The judge has eight conversions: five with one fault each, and
# three that are correct, whose logits differ from the reference only by rounding. Write `is_faulty`, which may compute
# logits with the reference and with the suspect. It must be right about all eight, and the judge counts every token
# that it computes. There is no single best answer: each time you reach the bar, it rises.

# %%
from labs.convert_checkpoint import challenge


def is_faulty(reference: challenge.Probe, suspect: challenge.Probe) -> bool:
    """Both have `.logits(token_ids)`, float32 [tokens, vocab_size], and `.vocab_size`."""
    ### BEGIN SOLUTION
    probe = [reference.vocab_size - 9, reference.vocab_size - 5, 500, reference.vocab_size - 1]
    difference = (reference.logits(probe) - suspect.logits(probe)).abs().max()
    return bool(difference > 0.05)
    ### STARTER
    # ...
    ### END SOLUTION


single = checkpoint.convert(model_dir, scratch.fresh("single"), dtype="float32")
await challenge.judge(checkpoint.open_checkpoint(single), is_faulty)

# %% [markdown]
# ## Recap
#
# - Conversion renames, fuses and shards. It computes nothing.
# - A column-parallel weight loses rows; a row-parallel weight loses columns, and a sum over the ranks completes its
#   result.
# - Shard first, then fuse. The names of the MLP's projections are crossed.
# - With more ranks than KV heads, weights and cache hold copies.
# - Shapes prove nothing. Logits do.
#
# **Keep:** `engineroom checkpoint convert`, `engineroom checkpoint inspect`, `engineroom checkpoint diff`,
# and one prompt whose logits you compare.
#
# Next: [05 · Build an engine](05_build_engine.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()

# %%
scratch.remove()
