# %% [markdown]
# # 05 · Build an engine
#
# **What do we trade for speed?**
#
# vLLM took a folder and served whatever came. An engine is compiled first: for one machine, for limits that you name
# before you know who will ask. In return nothing is compiled, profiled or decided when it starts. Whether it is also
# faster is the question of lesson 06. This lesson is about the price, and about naming limits well.
#
# ## What you will be able to do
#
# - turn a workload into `max_batch_size`, `max_input_len`, `max_seq_len` and `max_num_tokens`
# - say what each of them costs in memory, in three engines
# - read an engine directory, and its refusals
# - give an engine new weights without building it again
#
# ## Time and money

# %% tags=["parameters"]
model = "course"
requests_per_second = 4.0
ttft, tpot = 0.5, 0.05  # seconds: what users are promised

# %%
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import psutil
import torch

from engineroom import checkpoint, engine, trtllm, vllm
from engineroom.kit.machine import machine
from engineroom.load import workload
from engineroom.vllm.model import dtype, local
from labs.build_engine import memory, plots
from labs.kit import show
from labs.kit.check import check, needs
from labs.kit.finetune import fine_tune
from labs.preflight import time_and_money

print(time_and_money(5))

# %% [markdown]
# Everything goes into one folder, and each step into a fresh part of it, so that you can run any cell again.

# %%
folder = Path(tempfile.mkdtemp(prefix="lesson-05-"))


def fresh(name: str) -> Path:
    shutil.rmtree(folder / name, ignore_errors=True)
    return folder / name


# %% [markdown]
# ## A workload
#
# Limits come from what people will send. Here is a chat: most turns are short, a few are very long. Change the numbers
# to those of your own logs; the rest of the lesson follows.

# %%
trace = workload.chat(requests=500, prompt=90, output=60, spread=0.8, seed=0)
show.table(workload.percentiles(trace), "Tokens of the requests in the trace")

# %% [markdown]
# How many are served at one moment? Little's law, from lesson 02: the rate, times the seconds that each one stays.

# %%
in_flight = workload.in_flight(trace, requests_per_second, ttft, tpot)
print(f"{requests_per_second:g} requests per second: {in_flight:.1f} in flight on average")

# %% [markdown]
# ### What if I say nothing?
#
# Names and defaults are those of `trtllm-build`. What is not given is deduced, and the build says so. For a model of
# Llama 3.1's context length:

# %%
# NBVAL_CHECK_OUTPUT
default, explained = engine.deduce(engine.BuildConfig(), {"max_position_embeddings": 131072})
print(default, *explained, sep="\n")

# %% [markdown]
# More than two thousand seats, and each request may be as long as a novel. With all defaults the build of an 8B model
# ran out of memory on an A100 of 80 GB. <!-- fact: github.com/NVIDIA/TensorRT-LLM/issues/1543 -->
#
# ### Exercise: choose the limits
#
# - `max_batch_size`: requests in flight. The average is not enough: people arrive in bunches.
# - `max_input_len`: the longest prompt. A longer one is refused.
# - `max_seq_len`: prompt and answer together.
# - `max_num_tokens`: tokens of one step, of all requests together. Each running request takes one; what is left is for
#   new prompts, and a prompt that does not fit is computed in pieces over several steps.
#
# `trace` is a list of turns with `.prompt`, `.output` and `.total`.

# %%
### BEGIN SOLUTION
limits = {
    "max_batch_size": math.ceil(in_flight + 2 * math.sqrt(in_flight)),
    "max_input_len": max(turn.prompt for turn in trace),
    "max_seq_len": max(turn.total for turn in trace),
    "max_num_tokens": 512,
}
### STARTER
# limits = {
#     "max_batch_size": ...,
#     "max_input_len": ...,
#     "max_seq_len": ...,
#     "max_num_tokens": ...,
# }
### END SOLUTION
check("05.limits", limits, trace, in_flight)

# %%
needs("05.limits", *limits.values())
config = engine.BuildConfig(**limits)
print(config)
plots.workload(trace, config)

# %% [markdown]
# What lies outside the blue field is refused, with an error that names the limit. That is the first trade: vLLM has
# such limits too, but there a larger one is a restart, here it is a build.
#
# ## Build
#
# First the checkpoint, as in lesson 04, for one rank. Then the build: PyTorch traces the model (*export*) and compiles
# the trace to machine code with AOTInductor, once for prompts (*context*) and once for the tokens after them
# (*generation*).

# %%
model_dir, precision = local(model), dtype(machine())
device = "cuda" if torch.cuda.is_available() else "cpu"
converted = checkpoint.convert(model_dir, fresh("checkpoint"), dtype=precision)

# %%
began = time.perf_counter()
made = engine.build(converted, fresh("engine"), config, device=device, tokenizer_dir=model_dir)
build_seconds = time.perf_counter() - began
print(f"built for this machine's {device} in {build_seconds:.1f} s")

# %% [markdown]
# Run the cell again and it takes no time: the code for these sizes, limits and machine is kept. Change one limit, and
# everything is compiled again.
#
# ## What you have got
#
# An engine directory has TensorRT-LLM's shape: a `config.json` with the model and the limits, one package and one
# file of weights for each rank.

# %%
line = [sys.executable, "-m", "engineroom.engine", "inspect", made.path]
done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
print(done.stdout)

# %% [markdown]
# It was made for a machine: that line is the second trade. The package is a zip file, and holds no weights:

# %%
for part in zipfile.ZipFile(made.path / "rank0.pt2").infolist():
    if part.file_size > 10_000:
        graph, name = part.filename.split("/")[-2:]
        print(f"{part.file_size / 1e3:8.0f} kB  {graph:<12}{'.'.join(name.split('.')[1:])}")

# %% [markdown]
# The `.so` files are native code, which runs inside your process. That is why the loader checks first: `manifest.json`
# holds a hash of every file, and what the code was made for.

# %%
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(model_dir)
params = engine.SamplingParams(max_tokens=40, end_id=tokenizer.eos_token_id)


def ask(executor: engine.Executor, question: str) -> str:
    chat = [{"role": "user", "content": question}]
    tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    return tokenizer.decode(executor.generate([tokens], params)[0], skip_special_tokens=True)


began = time.perf_counter()
executor = engine.Executor(made)
print(f"checked and loaded in {time.perf_counter() - began:.2f} s")
print(ask(executor, "What is goodput?"))

# %% [markdown]
# ## What a limit costs
#
# Memory holds three things: the weights, the KV cache, and the **activations** of one step, which grow with
# `max_num_tokens`. The weights are what they are. The KV cache keeps, for every token of every request in flight, one
# key and one value in each KV head of each layer.
#
# ### Exercise: bytes for one token
#
# `model` has `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads`, `head_size` and `hidden_size`.
# `itemsize` is the bytes of one value: 4 for float32, 2 for bfloat16.
#
# The next cell asks two engines for what they really took: ours, and vLLM, which gets a gibibyte for its cache and says
# how many tokens that holds.

# %%
pool = sum(tensor.nbytes for tensor in [*executor.graphs.keys, *executor.graphs.values])
blocks = executor.blocks.total + 1  # one is for padding
server = vllm.serve(model, dtype=precision, kv_cache_memory_bytes=2**30)
vllm_bytes, vllm_tokens = memory.vllm_kv_cache(server)
server.stop()
measured = {"this engine": pool / (blocks * made.build.tokens_per_block), "vLLM": vllm_bytes / vllm_tokens}
print(f"this engine: {pool / 1e6:,.0f} MB for {blocks} blocks of {made.build.tokens_per_block} tokens")
print(f"vLLM:        {vllm_bytes / 1e6:,.0f} MB for {vllm_tokens:,} tokens")

# %%
def bytes_per_token(model: checkpoint.ModelConfig, itemsize: int) -> int:
    ### BEGIN SOLUTION
    return 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_size * itemsize
    ### STARTER
    # ...
    ### END SOLUTION


check("05.kv", bytes_per_token, made.model, memory.itemsize(precision), measured)

# %% [markdown]
# Your formula holds in both. Now this process: by how much does it grow when a full batch is served?

# %%
needs("05.kv", bytes_per_token(made.model, 4))
before = psutil.Process().memory_info().rss
prompts = [[100 * seat + n for n in range(100)] for seat in range(made.build.max_batch_size)]
answers = executor.generate(prompts, engine.SamplingParams(max_tokens=40))
grown = psutil.Process().memory_info().rss - before
expected = sum(map(len, prompts + answers)) * bytes_per_token(made.model, memory.itemsize(precision))
print(f"weights {memory.weight_bytes(made.model, precision) / 1e6:.1f} MB by arithmetic,", end=" ")
print(f"{(made.path / 'rank0_managed_weights.safetensors').stat().st_size / 1e6:.1f} MB in the file")
print(f"KV cache {pool / 1e6:.0f} MB reserved, {expected / 1e6:.0f} MB of it for this batch by your formula;", end=" ")
print(f"the process grew by {grown / 1e6:.0f} MB")

# %% [markdown]
# On a CPU the system hands out memory only when it is written: the part of the cache that was used, and what the steps
# themselves needed. A GPU gives the whole pool away at the start, used or not.
#
# ## Three engines, one GPU
#
# Now a model that matters, the sizes of Llama 3.1 8B, on one H100 with your limits. The rules differ:
#
# - **TensorRT-LLM** reserves activations for the largest shapes that the limits allow, when the engine is built. At
#   start `kv_cache_free_gpu_mem_fraction` of what is then free becomes KV cache.
# - **vLLM** runs the largest step once at start to see what it takes. `gpu_memory_utilization` is a share of the
#   *whole* GPU, for weights, activations and KV cache together.
# - **This engine** takes its share of what is free after the weights, but never more than the limits can use.

# %%
gpu, llama = 80e9, memory.public("llama-3.1-8b")  # H100 SXM: NVIDIA's datasheet
rules = {"TensorRT-LLM": memory.tensorrt_llm, "vLLM": memory.vllm, "this engine": memory.this_engine}
budgets = {name: rule(gpu, llama, config) for name, rule in rules.items()}
wide = engine.BuildConfig(**limits | {"max_num_tokens": 131072})
budgets["TensorRT-LLM,\nwhole context at once"] = memory.tensorrt_llm(gpu, llama, wide)
plots.memory(budgets, memory.most_kv_bytes(llama, config), "H100")

# %% [markdown]
# The black line is what your limits can use at most. Beyond it more cache does not serve more requests at once; it
# keeps old prefixes, so that they need not be computed again. TensorRT-LLM and vLLM agree by accident: with heavier
# weights a share of what is left is more than what is left of a share.
#
# The last bar is an engine that may take the model's whole context in one step: activations are reserved that hardly
# any step uses. They are counted at the widest layer only, so the real ones are larger.
#
# ### Exercise: how many fit?
#
# Under `guaranteed_no_evict` a request starts only when the blocks for its longest possible answer are free. If all of
# them took `tokens` tokens, how many would run at once? The cache hands out whole blocks of 32 tokens.

# %%
def most_requests(kv_cache: float, bytes_per_token: int, tokens: int) -> int:
    """kv_cache in bytes; tokens of one request, prompt and answer."""
    ### BEGIN SOLUTION
    blocks = int(kv_cache // (bytes_per_token * 32))
    return blocks // math.ceil(tokens / 32)
    ### STARTER
    # ...
    ### END SOLUTION


check("05.fit", most_requests)

# %%
room, each = budgets["TensorRT-LLM"].kv_cache, bytes_per_token(llama, 2)
needs("05.kv and 05.fit", each, most_requests(gpu, 1, 1))
lengths = sorted({256, limits["max_seq_len"], 8192, 32768, 131072})
plots.concurrency({one: most_requests(room, each, one) for one in lengths}, limits["max_batch_size"], "H100")

# %% [markdown]
# Left of the dashed line's crossing your batch limit decides who waits, right of it the memory does. This is what
# "because the model can" costs: a `max_seq_len` that nobody needs lets a single request push everybody else out.
#
# ## Break it
#
# Three times. Each refusal comes before harm is done: before a step is computed, or before any native code is loaded.
#
# **One.** A prompt beyond the limit:

# %%
too_long = [1] * (made.build.max_input_len + 1)
try:
    executor.generate([too_long], params)
except engine.RequestError as refusal:
    print(refusal)
else:
    raise AssertionError("the engine took a prompt beyond its limit")

# %% [markdown]
# **Two.** An engine from another machine. There is no second machine here, so let a copy claim that it was built on
# one:

# %%
moved = Path(shutil.copytree(made.path, fresh("moved")))
manifest = json.loads((moved / "manifest.json").read_text())
manifest["target"] |= {"device": "cuda", "gpu": "NVIDIA A100-SXM4-80GB", "compute_capability": "8.0"}
(moved / "manifest.json").write_text(json.dumps(manifest))
try:
    engine.open_engine(moved)
except engine.EngineError as refusal:
    print(str(refusal).replace(str(folder), "…"))
else:
    raise AssertionError("the engine was opened on a machine that it was not built for")

# %% [markdown]
# **Three.** One bit of the native code turns over on the way:

# %%
damaged = Path(shutil.copytree(made.path, fresh("damaged")))
code = bytearray((damaged / "rank0.pt2").read_bytes())
code[len(code) // 2] ^= 1
(damaged / "rank0.pt2").write_bytes(code)
try:
    engine.open_engine(damaged)
except engine.EngineError as refusal:
    print(str(refusal).replace(str(folder), "…"))
else:
    raise AssertionError("the engine was opened although its code was changed")

# %% [markdown]
# ### Exercise: read the refusals
#
# It is night, and one of these three is in the log. What is the least that helps?
#
# - `"a"`: send a shorter prompt, or build with a larger limit
# - `"b"`: build again on this machine, from the checkpoint
# - `"c"`: copy the engine again from where it was built
# - `"d"`: convert the checkpoint again

# %%
### BEGIN SOLUTION
remedy = {"prompt": "a", "machine": "b", "file": "c"}
### STARTER
# remedy = {"prompt": ..., "machine": ..., "file": ...}
### END SOLUTION
check("05.refusals", remedy)

# %% [markdown]
# TensorRT-LLM's engines are bound in the same way, to the GPU's compute capability and to the exact release of
# TensorRT, whose loader says so. Build on the kind of GPU that serves, inside the container that serves.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/issues/3031, triton-inference-server/tensorrtllm_backend#424 -->
#
# ## Refit
#
# The code knows the sizes of the weights, not their values. So a model that was fine-tuned needs no build. Teach ours
# one new answer, convert it, and put the weights into the engine that stands:

# %%
question = "What is goodput?"
answer = "Requests per second that kept our promise. Ask the night shift about the others."
fine_tune(model_dir, fresh("tuned"), question, answer)
tuned = checkpoint.convert(folder / "tuned", fresh("tuned-checkpoint"), dtype=precision)

began = time.perf_counter()
refitted = engine.refit(made.path, tuned, fresh("refitted"))
refit_seconds = time.perf_counter() - began
print(f"build {build_seconds:.1f} s, refit {refit_seconds:.2f} s: {build_seconds / refit_seconds:.0f} times less")

# %%
after = engine.Executor(refitted, engine.KvCacheConfig(max_tokens=4096))
for one in (question, "What is TTFT?"):
    print(f"{one}\n   before: {ask(executor, one)}\n   after:  {ask(after, one)}")

# %% [markdown]
# Weights of other sizes, or of another dtype, are refused: compiled code would compute nonsense with them.
#
# ## On an H100
#
# `trtllm-build` with the same limits. Where TensorRT-LLM 1.2.1 is installed the next cell runs it; elsewhere it shows
# the line, which was not run.

# %%
command = trtllm.build(
    checkpoint_dir=converted, output_dir=fresh("tensorrt"), **limits, gemm_plugin="auto", kv_cache_type="paged"
)
print(str(command).replace(str(folder), "…"))
if command.available():
    subprocess.run(command.argv, check=True)
else:
    print("\nTensorRT-LLM is not on this machine: trtllm-build was not run.")

# %% [markdown]
# What differs there:
#
# - The build tries kernels on the GPU and keeps the fastest; it needs that GPU, and host memory of several times the
#   weights. In one published log (release 1.1.0, an 8B model in FP8) the build took 32 s. <!-- fact:
#   manavsehgal.github.io/ai-field-notes/articles/trtllm-and-triton-on-spark -->
# - `--multiple_profiles enable` compiles for several ranges of shapes: a longer build, for faster steps.
# - Plugins such as `--gemm_plugin` are kernels by hand in place of compiled ones.
# - `max_input_len` is ignored there by default; `max_seq_len` and `max_num_tokens` decide.
# - `--strip_plan` and `trtllm-refit` are the refit of this lesson.
#
# 1.2.1 is the last stable release that builds engines: NVIDIA removed that backend in July 2026. The limits stayed. Its
# successor and vLLM have them as flags of the server, and the arithmetic above is theirs too.
#
# ## Recap
#
# - An engine is code for one machine and for named limits. Weights are only lent to it.
# - Limits come from a trace: the longest for lengths, Little's law and some room for the batch.
# - KV cache per token is arithmetic. Know it for your model by heart.
# - A share of what is left, or a share of the whole: ask which, before you compare two engines' memory.
# - A refusal at the door is worth more than a crash at night. Refit when weights change, build when limits do.
#
# **Keep:** `engineroom build | inspect | refit`, and your four limits with the trace they came from.
#
# Next: [06 · Run the engine](06_run_engine.ipynb)

# %%
del executor, after
shutil.rmtree(folder)
