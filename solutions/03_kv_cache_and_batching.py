# %% [markdown]
# # 03 · KV cache and batching
#
# **Where does the memory go?**
#
# The weights of a model are a fixed cost. The **KV cache** is not: it grows with every token of every request in
# flight. It decides how many users you can serve at once, and with that much of the throughput and of the cost. In this
# lesson you compute the size of the cache, manage its memory, fill it to the last block, and see what it means for
# batching.
#
# ## What you will be able to do
#
# - compute the size of a model's KV cache from its `config.json`, and predict what vLLM reports
# - write a block allocator with reference counts and copy on write, and run an engine on it
# - predict how many requests fit at once, and prove it
# - say what static batching wastes, what a prefix cache saves, and what one long prompt does to everybody else
#
# ## Time and money

# %% tags=["parameters"]
model = "course"

# %%
import json
import math
import secrets
import statistics
from collections import deque
from itertools import pairwise

import numpy as np
import torch
from transformers import AutoTokenizer

# %%
from engineroom import checkpoint, engine, load, vllm
from engineroom.engine.config import Limits
from engineroom.engine.runtime.block_allocator import RefCountAllocator
from engineroom.kit.machine import machine
from engineroom.load.shape import SHAPES
from engineroom.metrics.kv_cache import kv_cache_stats
from engineroom.vllm.model import dtype, local_folder
from labs.kit import memory, show
from labs.kit.check import check, needs
from labs.kit.replay import Arrival, replay
from labs.kit.scratch import scratch_folder
from labs.kv_cache_and_batching import challenge, plots, runs
from labs.kv_cache_and_batching.strip import BlockStrips
from labs.preflight import time_and_money

print(time_and_money(3))

# %% [markdown]
# ## What one token costs
#
# To compute the next token, attention reads the **keys** and the **values** of all earlier tokens. These are vectors:
# in every layer, each token has one key and one value per *KV head*. Computing them again for every new token would be
# wasteful, so engines keep them: that is the KV cache. In **grouped-query attention** (GQA), several query heads share
# one KV head. Queries are used once and not kept.

# %%
# NBVAL_CHECK_OUTPUT
model_dir, precision = local_folder(model), dtype(machine())
config = json.loads((model_dir / "config.json").read_text())
sizes = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size")
print({name: config[name] for name in sizes})

# %% [markdown]
# ### Exercise: bytes for one token
#
# `config` is a dictionary such as the one above; `head_dim` is the length of one key. `itemsize` is the number of
# bytes of one value: 4 for float32, 2 for bfloat16.

# %%
def bytes_per_token(config: dict, itemsize: int) -> int:
    ### BEGIN SOLUTION
    vectors = 2 * config["num_hidden_layers"] * config["num_key_value_heads"]
    return vectors * config["head_dim"] * itemsize
    ### STARTER
    # ...
    ### END SOLUTION


check("03.kv", bytes_per_token)

# %% [markdown]
# Llama 3.1 8B has 32 query heads and 8 KV heads. What would it need with a KV head for each query head? Guess before
# you run the cell. The number of users that fit shrinks by the same factor.

# %%
needs("03.kv", bytes_per_token(config, 4))
llama = SHAPES["llama-3.1-8b"]
every_head = llama | {"num_key_value_heads": llama["num_attention_heads"]}
plots.heads({
    f"the course model, {precision}": bytes_per_token(config, memory.itemsize(precision)),
    "Llama 3.1 8B, bfloat16": bytes_per_token(llama, 2),
    "the same without GQA": bytes_per_token(every_head, 2),
})

# %% [markdown]
# ## Does vLLM agree?
#
# vLLM divides its memory for the KV cache into **blocks**, each for the same number of tokens. The next cell gives vLLM
# one gibibyte, but lets it use only 33 blocks of 128 tokens, so that the blocks can run out within this lesson. (The
# default block size is 128 on a CPU and 16 on a GPU.)
# <!-- fact: vllm 0.32, vllm/platforms/cpu.py and config/cache.py -->

# %%
KV_BYTES, BLOCK_SIZE, NUM_BLOCKS = 2**30, 128, 33
server = vllm.serve(
    model, dtype=precision, kv_cache_memory_bytes=KV_BYTES, block_size=BLOCK_SIZE, num_gpu_blocks_override=NUM_BLOCKS,
    max_num_seqs=64, max_num_batched_tokens=8192,
)  # fmt: skip

# %%
needs("03.kv", bytes_per_token(config, 4))
per_block = BLOCK_SIZE * bytes_per_token(config, memory.itemsize(precision))
print(f"predicted: one gibibyte holds {KV_BYTES // per_block} blocks;", end=" ")
print(f"{NUM_BLOCKS} blocks hold {NUM_BLOCKS * BLOCK_SIZE:,} tokens")
print(*runs.kv_cache_lines(server), sep="\n")

# %% [markdown]
# `num_gpu_blocks` is the number of blocks that the gibibyte would have held: your formula, to the block. The KV cache
# size is that of the 33 blocks which vLLM may use. The *maximum concurrency* is for requests of the model's full
# context, and it is not rounded down. Requests get one block less than 33: vLLM keeps block 0 for itself.
#
# vLLM's metrics say the same. Our engine's server publishes them under the same names, so one function reads both
# servers.

# %%
stats = kv_cache_stats(server)
print(f"{stats.num_blocks} blocks of {stats.block_size} tokens, {stats.num_usable_blocks} for requests,", end=" ")
print(f"{stats.num_used_blocks} in use")

# %% [markdown]
# ## Blocks, seen from inside
#
# Why blocks? Nobody knows how long an answer will be. Before 2023, engines reserved memory for the longest possible
# answer of each request, in one piece, and most of it stayed empty. With blocks, a request takes a new block only when
# its last one is full, and the new block may be anywhere in memory. The request's **block table** lists its blocks in
# order. Attention that finds keys and values through such a table is called **paged attention**. <!-- fact: Kwon et
# al., "Efficient Memory Management for Large Language Model Serving with PagedAttention", 2023 -->
#
# To watch it, build our engine (lesson 05 explains how) and serve eight requests whose prompts begin alike. The first
# request arrives two steps before the others, so that they find its blocks filled.

# %%
folder = scratch_folder("lesson-03")
device = "cuda" if torch.cuda.is_available() else "cpu"
limits = engine.BuildConfig(max_batch_size=8, max_input_len=1024, max_seq_len=1536, max_num_tokens=1024)
converted = checkpoint.convert(model_dir, folder.fresh("checkpoint"), dtype=precision)
engine_dir = engine.build(converted, folder.fresh("engine"), limits, device=device, tokenizer_dir=model_dir)
tokens_per_block = engine_dir.limits.tokens_per_block

# %%
tokenizer = AutoTokenizer.from_pretrained(model_dir)
manner = "You are the assistant of an engine room, and a patient one. Answer in one sentence and in plain words. "
manner += "Never guess a number: say that you do not know it, and where one could measure it. "
manner += "When a term has two names, give both, and say which engine uses which. Do not praise any engine. "
manner += "If a question is about cost, name the machine, the price for an hour, and the load that you assume. "
manner += "If a question cannot be answered in one sentence, say so, and name the page to read."
terms = ["TTFT", "goodput", "prefill", "the KV cache", "paged attention", "a tokenizer", "latency", "the roofline"]


def tokens_of(question: str) -> list[int]:
    chat = [{"role": "system", "content": manner}, {"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


questions = [
    Arrival(tokens_of(f"What is {term}?"), 24 + 10 * n, step=2 * min(n, 1)) for n, term in enumerate(terms)
]

# %%
strips = BlockStrips()
on_ours = replay(engine_dir, questions, kv_tokens=40 * tokens_per_block, reuse=True, watch=strips)

# %% [markdown]
# Each strip shows all blocks at one step. A square is one block; its colour and number say which request has it.
# Hatched blocks hold the common beginning of the prompts, stored once. As the answers grow, fewer blocks are free. When
# a request ends, its blocks are free at once; a dot marks a free block whose content is kept until another request
# needs the space.
#
# Where is memory wasted? Only in the last block of each request:

# %%
empty_tokens = [tokens for blocks in strips.maps for tokens in blocks.num_empty_tokens]
reserved = engine_dir.limits.max_seq_len - statistics.mean(len(a.token_ids) + a.max_tokens for a in questions)
print(f"empty places of a request: {statistics.mean(empty_tokens):.1f} of {tokens_per_block} on average;", end=" ")
print(f"half a block is {tokens_per_block / 2:g}")
print(f"one piece of max_seq_len {engine_dir.limits.max_seq_len} for each request would leave {reserved:.0f} empty")

# %% [markdown]
# ### Exercise: the allocator
#
# Under the block tables lies an allocator. It knows nothing but block ids and, for each block, the number of references
# to it: one for each table that contains the block. (If the engine keeps the content for later requests, that counts as
# one reference more.) Write this allocator. The engine calls:
#
# - `allocate()`: take a free block, set its count to 1, and return its id.
# - `share(block_id)`: add a reference to this block.
# - `free(block_id)`: drop a reference to this block. A block without references is free again.
# - `copy_on_write(block_id)`: the caller is about to write to this block. If nobody else refers to it, return
#   `block_id`. Otherwise drop the caller's reference, allocate a new block, and return its id. (The engine then copies
#   the contents.)
#
# The engine calls `allocate` and `copy_on_write` only while a block is free.

# %%
# allow long-cell: one class, of which you write four short methods
class Blocks:
    def __init__(self, num_blocks: int):
        self.free_block_ids = deque(range(1, num_blocks + 1))
        self.ref_counts = [0] * (num_blocks + 1)  # by block id; the engine keeps block 0 for itself

    @property
    def num_free_blocks(self) -> int:
        return len(self.free_block_ids)

    ### BEGIN SOLUTION
    def allocate(self) -> int:
        block_id = self.free_block_ids.popleft()
        self.ref_counts[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        self.ref_counts[block_id] += 1

    def free(self, block_id: int) -> None:
        self.ref_counts[block_id] -= 1
        if self.ref_counts[block_id] == 0:
            self.free_block_ids.append(block_id)

    def copy_on_write(self, block_id: int) -> int:
        if self.ref_counts[block_id] == 1:
            return block_id
        self.free(block_id)
        return self.allocate()
    ### STARTER
    # def allocate(self) -> int: ...
    # def share(self, block_id: int) -> None: ...
    # def free(self, block_id: int) -> None: ...
    # def copy_on_write(self, block_id: int) -> int: ...
    ### END SOLUTION


# %%
allocator_is_right = check("03.allocator", Blocks)

# %% [markdown]
# Now the engine runs on your allocator. The same eight requests must get the same tokens.

# %%
needs("03.allocator", allocator_is_right or None)
on_yours = replay(engine_dir, questions, kv_tokens=40 * tokens_per_block, reuse=True, make_block_allocator=Blocks)
num_equal = sum(a == b for a, b in zip(on_yours.answers, on_ours.answers, strict=True))
print(f"{num_equal} of {len(questions)} answers are the same;", end=" ")
print(f"{on_yours.num_reused_tokens} prompt tokens came from shared blocks")

# %% [markdown]
# When is a block copied? When one prompt gets several answers: the request **forks**, and all branches share the
# prompt's blocks, the last one included. The last block is not full, and each branch must write its own next token into
# it.

# %%
prompt = tokens_of("What is a GPU?")
three = {name: runs.branch(engine_dir, prompt, [1, 2, 3], 40, make_block_allocator=make)
         for name, make in {"yours": Blocks, "ours": RefCountAllocator}.items()}  # fmt: skip
separate_blocks = sum(runs.branch(engine_dir, prompt, [seed], 40).num_blocks for seed in (1, 2, 3))
print(f"three answers to {len(prompt)} tokens:", end=" ")
print(f"{three['yours'].num_blocks} blocks instead of {separate_blocks};", end=" ")
print(f"{three['yours'].num_copied_blocks} blocks copied; same tokens as with our allocator:", end=" ")
print(three["yours"].answers == three["ours"].answers)

# %% [markdown]
# Three branches and two copies: the last branch to write is alone with the original, and writes in place.
#
# ## How many fit?
#
# ### Exercise: the largest concurrency
#
# A cache has `num_blocks` blocks of `block_size` tokens. Every request has a prompt of `prompt` tokens and an answer
# of `answer` tokens, and shares no block. How many requests can run at once, so that none has to wait or to be paused?
# Count every token of the answer, although the last one needs no key and value: no later token reads them.

# %%
def max_concurrency(num_blocks: int, block_size: int, prompt: int, answer: int) -> int:
    ### BEGIN SOLUTION
    return num_blocks // math.ceil((prompt + answer) / block_size)
    ### STARTER
    # ...
    ### END SOLUTION


check("03.concurrency", max_concurrency)

# %% [markdown]
# Prove it on vLLM, with one load that just fits and one with a single request more. All requests are sent at the same
# moment. If all of them run at once, every request gets its first token before any request gets its last.

# %%
PROMPT, ANSWER = 140, 110
concurrency = max_concurrency(stats.num_usable_blocks, stats.block_size, PROMPT, ANSWER)
needs("03.concurrency", concurrency)
by_load = {}
for seed, users in enumerate((concurrency, concurrency + 1)):
    prompts = load.random_prompts(users, PROMPT, seed=seed)
    by_load[f"{users} requests"] = await load.fire(server, prompts, ANSWER, model=model, ignore_eos=True)
plots.loads(by_load)

# %%
for name, traces in by_load.items():
    print(f"{name}: at most {runs.max_concurrent_streams(traces)} at once,", end=" ")
    print(f"{runs.waits_for_a_block(traces)} waited until another one had ended")
print(f"predicted: {concurrency} at once; preemptions: {kv_cache_stats(server).num_preemptions}")

# %% [markdown]
# One request too many, and one waits. No latency rises because the cache is nearly full: the first sign is a request in
# the queue.
#
# ## Who computes with whom?
#
# A **slot** is a place in the batch; the engine has `max_batch_size` of them. The oldest way to fill them is **static
# batching**: take as many requests as there are slots, compute this batch to the end, then take the next. Answers have
# different lengths, so slots stand idle.
#
# ### Exercise: predict the idle slots
#
# `lengths` are the lengths of the answers, in the order of arrival; a request takes one step for each token. How many
# slots are idle, summed over all steps? Every step has `slots` slots, even in the last batch, which may have fewer
# requests.

# %%
def idle_slots(lengths: list[int], slots: int) -> int:
    ### BEGIN SOLUTION
    batches = [lengths[begin : begin + slots] for begin in range(0, len(lengths), slots)]
    return sum(slots * max(batch) - sum(batch) for batch in batches)
    ### STARTER
    # ...
    ### END SOLUTION


check("03.idle", idle_slots)

# %% [markdown]
# Now run it both ways. **In-flight batching** (vLLM says *continuous batching*) fills a slot in the step right after
# the one in which it became free.

# %%
def random_tokens(lengths: list[int], seed: int = 3) -> list[list[int]]:
    """Token ids at random; how long a step takes does not depend on them."""
    draw = np.random.default_rng(seed)
    return [draw.integers(2, engine_dir.model.vocab_size, length).tolist() for length in lengths]


lengths = [20, 9, 14, 30, 6, 12, 25, 8, 16, 10, 22, 7, 11, 28]
waiting = [Arrival(*pair) for pair in zip(random_tokens([40] * len(lengths)), lengths, strict=True)]
batched = {
    "static": replay(engine_dir, waiting, rule=runs.one_batch_at_a_time, max_batch_size=4),
    "in flight": replay(engine_dir, waiting, max_batch_size=4),
}
plots.slots(batched, 4)

# %%
# NBVAL_CHECK_OUTPUT
needs("03.idle", idle_slots([1], 1))
print(f"static: {idle_slots(lengths, 4)} idle slots predicted, {runs.count_idle_slots(batched['static'], 4)} counted")
print(f"in flight: {runs.count_idle_slots(batched['in flight'], 4)} idle slots, all of them at the end")
print("same answers:", batched["static"].answers == batched["in flight"].answers)

# %% [markdown]
# ## A prefix that is there already
#
# How did the requests above find the blocks that they shared? By a **prefix cache**: the engine keeps each full block
# under a hash of its tokens and of all tokens before them, even after its request has ended.
#
# ### Exercise: what is found?
#
# The engine has computed the prompt `earlier`, in blocks of `block_size` tokens. How many tokens of `prompt` are found
# in the cache? Only full blocks have a hash. The last token of a prompt is always computed: its output is the first
# token of the answer.

# %%
def cached_tokens(earlier: list[int], prompt: list[int], block_size: int) -> int:
    ### BEGIN SOLUTION
    equal = 0
    while equal < min(len(earlier), len(prompt)) and earlier[equal] == prompt[equal]:
        equal += 1
    return min(equal, len(prompt) - 1) // block_size * block_size
    ### STARTER
    # ...
    ### END SOLUTION


check("03.prefix", cached_tokens)

# %% [markdown]
# vLLM counts the tokens that it finds and the steps that it runs. Send two prompts that begin alike, one after the
# other: first a pair with 100 tokens in common, then a pair with 900.

# %%
needs("03.prefix", cached_tokens([1, 2], [1, 2], 1))
requests, hits = {}, []
for common in (100, 900):
    start, *ends = random_tokens([common, 40, 40], seed=common + len(requests))
    salt = {"cache_salt": secrets.token_hex(8)}  # nothing of an earlier run of this cell is found
    for name, end in zip(("first", "second"), ends, strict=True):
        label = f"{common} in common, {name}"
        requests[label] = await runs.send_counted(server, start + end, 16, model, **salt)
    predicted = cached_tokens(start + ends[0], start + ends[1], BLOCK_SIZE)
    hits.append((predicted, requests[label].cached_tokens))
plots.prefixes(requests)
print("tokens found, (predicted, counted by vLLM):", *hits)

# %% [markdown]
# With blocks of 128 tokens, a common beginning of 100 tokens is worth nothing. And a hit changes no number of steps: it
# saves prompt tokens *before* the first token of the answer, and nothing after it. Now measure the times, with more
# pairs of long prompts:

# %%
pairs = []
for seed in range(7):
    start, *ends = random_tokens([900, 40, 40], seed=100 + seed)
    salt = {"cache_salt": secrets.token_hex(8)}
    pairs.append([(await runs.send_counted(server, start + end, 64, model, **salt)).trace for end in ends])
ttft_ratio = statistics.median(load.ttft(hit) / load.ttft(cold) for cold, hit in pairs)
itl_ratio = statistics.median(load.tpot(hit) / load.tpot(cold) for cold, hit in pairs)  # TPOT is the mean ITL
print(f"with a hit, TTFT is {ttft_ratio:.2f} of what it was, and the mean ITL {itl_ratio:.2f}; medians of {len(pairs)}")
if not 0.8 < itl_ratio < 1.25:
    print("The machine was busy with something else meanwhile, or ITL would be the same: run this cell again.")

# %% [markdown]
# ## One long prompt, everybody's wait
#
# The more tokens a step computes, the longer it takes. Four users read their streams when somebody sends a prompt of
# 1,000 tokens. If the whole prompt goes into one step, every stream waits for that step. **Chunked prefill**
# (TensorRT-LLM: *chunked context*) limits the tokens of a step: each step computes a piece of the prompt, together with
# the next token of every stream.
#
# The next cell serves the same requests with three limits. Other programs on your machine cause gaps too, so the cell
# runs each limit five times and keeps the run whose longest gap is the shortest.

# %%
readers = [Arrival(tokens, 120) for tokens in random_tokens([20, 30, 40, 50])]
arrivals = [*readers, Arrival(random_tokens([1000])[0], 10, step=40)]
chunked = {}
for max_num_tokens in (1024, 256, 64):
    tries = [replay(engine_dir, arrivals, max_num_tokens=max_num_tokens) for _ in range(5)]
    chunked[max_num_tokens] = min(tries, key=lambda run: plots.longest_gap(*plots.milliseconds(run, 0, 4)))
plots.chunks(chunked, watched=0, long=4)

# %%
rows = []
for max_num_tokens, run in chunked.items():
    gaps, ttft = plots.milliseconds(run, 0, 4)
    usual = statistics.median(later - earlier for earlier, later in pairwise(gaps))
    largest = max(sum(step.context.values()) + len(step.generation) for step in run.steps if step.generation)
    rows.append({
        "max_num_tokens": max_num_tokens, "tokens in the largest step": largest,
        "longest gap / usual gap": plots.longest_gap(gaps, ttft)[0] / usual,
        "steps to the long prompt's first token": run.ttft_steps[4],
    })
show.table(rows, "What the long prompt does to a reader, and what the bound does to the long prompt")
longest = [row["longest gap / usual gap"] for row in rows]
if longest != sorted(longest, reverse=True):
    print("Other programs disturbed these runs: run the cell above and this one again.")

# %% [markdown]
# The largest step decides the longest gap of the readers. Small chunks mean more steps, and a later first token for the
# long prompt. No value is right for everybody: a small limit helps ITL, a large one helps TTFT and throughput. Our
# engine and TensorRT-LLM call this limit `max_num_tokens`, vLLM `--max-num-batched-tokens`. In vLLM, chunked prefill is
# on by default.
#
# ## The cost
#
# Paging wastes half a block per request on average, and attention must look up every block in the table: smaller blocks
# waste less memory, but cost more look-ups.
#
# A prefix cache that several tenants share is a side channel: a quick first token tells a tenant that somebody has sent
# this beginning before. The remedy is to add a salt to the hash of the first block, here one salt for each tenant. It
# costs the hits between tenants:

# %%
secret = random_tokens([600], seed=secrets.randbits(32))[0]
for tenant, salt in (("tenant A", "a"), ("tenant B, same salt", "a"), ("tenant B, own salt", "b")):
    request = await runs.send_counted(server, secret, 4, model, cache_salt=salt)
    print(f"{tenant}: {request.cached_tokens} tokens found in the cache")

# %% [markdown]
# ## On an H100
#
# The arithmetic stays the same; the numbers grow. By their datasheets, an H100 has 80 GB and an H200 141 GB. vLLM and
# TensorRT-LLM each have a setting for the share of this memory that they use, but not for a share of the same thing:
#
# - vLLM's `gpu_memory_utilization` is a share of the *whole* GPU, for weights, activations and KV cache together.
# - TensorRT-LLM's `kv_cache_free_gpu_mem_fraction` is a share of what weights and activations leave *free*.
#
# Here is what each leaves for the KV cache of Llama 3.1 8B in bfloat16, with the defaults 0.92 and 0.9. <!-- fact: vllm
# 0.32, vllm/config/cache.py; nvidia.github.io/TensorRT-LLM, "Memory Usage of TensorRT-LLM" -->

# %%
public = memory.public_model("llama-3.1-8b")
large = Limits(max_batch_size=256, max_input_len=8192, max_seq_len=8192, max_num_tokens=8192)
rules = {"vLLM": memory.vllm_budget, "TensorRT-LLM": memory.tensorrt_llm_budget}
gpus = {"H100, 80 GB": 80e9, "H200, 141 GB": 141e9}
budgets = {
    gpu: {name: rule(total, public, large).kv_cache / 1e9 for name, rule in rules.items()}
    for gpu, total in gpus.items()
}
plots.budgets(budgets)

# %%
# NBVAL_CHECK_OUTPUT
needs("03.kv and 03.concurrency", bytes_per_token(llama, 2), max_concurrency(1, 1, 1, 0))
rows = []
for gpu, by_rule in budgets.items():
    for name, gigabytes in by_rule.items():
        num_blocks = int(gigabytes * 1e9 // (32 * bytes_per_token(llama, 2)))
        at_once = {f"{tokens:,} tokens": max_concurrency(num_blocks, 32, tokens - 256, 256) for tokens in (1024, 8192)}
        rows.append({"GPU": gpu, "engine": name, "blocks of 32": num_blocks, **at_once})
show.table(rows, "Requests of Llama 3.1 8B that fit at once")

# %% [markdown]
# Expect real numbers to differ by several percent: the memory that a GPU reports is not exactly that of its datasheet,
# real engines need more for activations than this estimate, and they keep memory for CUDA graphs. The order of
# magnitude holds, and so does the lesson: with 8,192 tokens for each request, memory decides how many run at once; with
# 1,024, some other limit comes first.
#
# ## An open challenge
#
# The judge has 25 prompts with five different beginnings. All of them wait at the start, at most four run at once, and
# the cache has only 20 blocks. `order` gets the prompts, which are lists of token ids, and returns their indices in the
# order in which to serve them. The judge serves them on the engine, counts the prompt tokens that are computed, and
# compares with the order of arrival. Every request must be served, and every answer must stay the same. There is no
# single best answer: each time you reach the bar, it rises.
#
# The cell has a first idea: the shortest prompts first. It saves some tokens, but not enough. (A request finds nothing
# in the blocks of another request that starts in the same step.)

# %%
def order(prompts: list[list[int]]) -> list[int]:
    ### BEGIN SOLUTION
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(tuple(prompt[:64]), []).append(index)
    members = list(groups.values())
    in_turns = []
    for begin in range(0, len(members), 2):  # two beginnings at a time, in turns
        for turn in zip(*members[begin : begin + 2], strict=True):
            in_turns += turn
    return in_turns
    ### STARTER
    # return sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    ### END SOLUTION


await challenge.CHALLENGE.judge(challenge.measure(engine_dir, order))

# %% [markdown]
# ## Recap
#
# - KV cache per token is `2 × layers × KV heads × head size × bytes`. GQA divides it by the ratio of query heads to KV
#   heads.
# - Blocks reduce the waste to half a block per request. With reference counts, requests share blocks; copy on write
#   keeps branches apart.
# - The number of requests that fit is the blocks of the cache divided by the blocks of a request, rounded down. One
#   request more has to wait.
# - In-flight batching fills a free slot in the next step. Static batching waits for the longest answer of the batch.
# - A prefix hit shortens the TTFT of its request, never its ITL. A long prompt in one step stops every stream; chunks
#   make the gap short.
#
# **Keep:** `bytes_per_token` and `max_concurrency`: the first two numbers to compute for any new model.
#
# Next: [04 · Convert a checkpoint](04_convert_checkpoint.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()

# %%
server.stop()
folder.remove()
