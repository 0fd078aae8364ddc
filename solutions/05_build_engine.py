# %% [markdown]
# # 05 · Build an engine
#
# **What do we trade for speed?**
#
# vLLM took a model folder and served whatever arrived. An engine is compiled first, for one machine and for limits that
# you set before the first request arrives. In return, nothing is compiled or profiled when it starts. Lesson 06 asks
# whether it is also faster. This lesson is about the price, and about choosing the limits well.
#
# ## What you will be able to do
#
# - turn a workload into `max_batch_size`, `max_input_len`, `max_seq_len` and `max_num_tokens`
# - compute what each limit costs in memory, in three engines
# - read an engine directory and an engine's refusals
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
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import psutil
import torch

# %%
from engineroom import checkpoint, engine, trtllm
from engineroom.kit.machine import machine
from engineroom.load import workload
from engineroom.vllm.model import dtype, local_folder
from labs.build_engine import plots
from labs.kit import memory, show
from labs.kit.check import check, needs
from labs.kit.finetune import fine_tune
from labs.kit.scratch import scratch_folder
from labs.kit.values import to_dict
from labs.preflight import time_and_money

print(time_and_money(5))

# %% [markdown]
# Everything goes into one temporary folder. Each step gets a fresh folder inside it, so you can run any cell again.

# %%
scratch = scratch_folder("lesson-05")
folder, fresh = scratch.path, scratch.fresh

# %% [markdown]
# ## A workload
#
# Limits follow from what people will send. This workload is a chat: most turns are short, a few are very long. Replace
# the numbers with those from your own logs; the rest of the lesson adapts.

# %%
trace = workload.chat(requests=500, prompt=90, output=60, spread=0.8, seed=0)
show.table(workload.percentiles(trace), "Tokens of the requests in the trace")

# %% [markdown]
# How many requests are in flight on average? Use Little's law from lesson 02: the request rate times the mean seconds
# that a request stays.

# %%
in_flight = workload.in_flight(trace, requests_per_second, ttft, tpot)
print(f"{requests_per_second:g} requests per second: {in_flight:.1f} in flight on average")

# %% [markdown]
# ### What if I say nothing?
#
# Names and defaults are those of `trtllm-build`. The build deduces a limit that you leave out, and tells you. For a
# model with the context length of Llama 3.1:

# %%
# NBVAL_CHECK_OUTPUT
default, explained = engine.deduce(engine.BuildConfig(), {"max_position_embeddings": 131072})
print(default, *explained, sep="\n")

# %% [markdown]
# These limits allow more than two thousand requests at once, each as long as a novel. With all defaults, the build of
# an 8B model ran out of memory on an A100 with 80 GB. <!-- fact: github.com/NVIDIA/TensorRT-LLM/issues/1543 -->
#
# ### Exercise: choose the limits
#
# - `max_batch_size`: requests in flight. The average is not enough: requests arrive in bunches.
# - `max_input_len`: the longest prompt. Longer prompts are refused.
# - `max_seq_len`: prompt and answer together.
# - `max_num_tokens`: tokens in one step, over all requests. Each running request takes one; the remainder is for
#   new prompts. A prompt that does not fit is computed in chunks over several steps.
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
limits_result = check("05.limits", limits, trace, in_flight)

# %%
needs("05.limits", limits_result or None)
limits = {name: int(limit) for name, limit in to_dict(limits).items()}
config = engine.BuildConfig(**limits)
print(config)
plots.workload(trace, config.max_input_len, config.max_seq_len)

# %% [markdown]
# Requests outside the blue area are refused, with an error that names the limit. That is the first trade. vLLM has
# such limits too, but raising one there takes a restart; here it takes a build.
#
# ## Build
#
# First convert the checkpoint for one rank, as in lesson 04. Then build: PyTorch traces the model (*export*), and
# AOTInductor compiles the resulting graph to machine code. An engine has one graph for prompts (*context*) and one for
# the tokens after them (*generation*); on a GPU, a third serves a single token.

# %%
model_dir, precision = local_folder(model), dtype(machine())
device = "cuda" if torch.cuda.is_available() else "cpu"
converted = checkpoint.convert(model_dir, fresh("checkpoint"), dtype=precision)

# %%
began = time.perf_counter()
engine_dir = engine.build(converted, fresh("engine"), config, device=device, tokenizer_dir=model_dir)
build_seconds = time.perf_counter() - began
print(f"built for this machine's {device} in {build_seconds:.1f} s")

# %% [markdown]
# Run the cell again and it takes almost no time: the build cache keeps the code for these sizes, limits and machine. If
# you change one limit, everything is compiled again.
#
# ## What is in an engine directory?
#
# An engine directory is laid out like TensorRT-LLM's: `config.json` holds the model and the limits, and each rank has
# files of its own. Here these are a package with the compiled code and a file with the weights.

# %%
line = [sys.executable, "-m", "engineroom.engine", "inspect", engine_dir.path]
inspection = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
print(inspection.stdout)

# %% [markdown]
# The first line names the machine that the engine was built for: that is the second trade. The package is a zip file
# and holds no weights:

# %%
for part in zipfile.ZipFile(engine_dir.path / "rank0.pt2").infolist():
    if part.file_size > 10_000:
        graph, name = part.filename.split("/")[-2:]
        print(f"{part.file_size / 1e3:8.0f} kB  {graph:<12}{'.'.join(name.split('.')[1:])}")

# %% [markdown]
# The `.so` files are native code, which will run inside your process. Therefore the loader checks first:
# `manifest.json` holds a hash of every file and describes the machine that the code was compiled for.

# %%
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(model_dir)
params = engine.SamplingParams(max_tokens=40, end_id=tokenizer.eos_token_id)


def ask(executor: engine.Executor, question: str) -> str:
    chat = [{"role": "user", "content": question}]
    tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    return tokenizer.decode(executor.generate([tokens], params)[0], skip_special_tokens=True)


began = time.perf_counter()
executor = engine.Executor(engine_dir)
print(f"checked and loaded in {time.perf_counter() - began:.2f} s")
print(ask(executor, "What is goodput?"))

# %% [markdown]
# ## What a limit costs
#
# Memory holds three things: the weights, the KV cache, whose size you computed in lesson 03, and the **activations** of
# one step: the tensors between the layers, which grow with `max_num_tokens`. How much more memory does this process use
# when it serves a full batch?

# %%
pool = sum(tensor.nbytes for tensor in [*executor.model_runner.k_caches, *executor.model_runner.v_caches])
before = psutil.Process().memory_info().rss
prompts = [[100 * row + n for n in range(100)] for row in range(engine_dir.limits.max_batch_size)]
answers = executor.generate(prompts, engine.SamplingParams(max_tokens=40))
grown = psutil.Process().memory_info().rss - before
batch_bytes = sum(map(len, prompts + answers)) * memory.kv_bytes_per_token(engine_dir.model, precision)
print(f"weights {memory.weight_bytes(engine_dir.model, precision) / 1e6:.1f} MB by arithmetic,", end=" ")
print(f"{(engine_dir.path / 'rank0_managed_weights.safetensors').stat().st_size / 1e6:.1f} MB in the file")
print(f"KV cache {pool / 1e6:.0f} MB reserved, {batch_bytes / 1e6:.0f} MB of it for this batch;", end=" ")
print(f"the process grew by {grown / 1e6:.0f} MB")
if grown < batch_bytes:
    print("A cell was run again, so the process had used this memory before. It grows after Kernel > Restart Kernel.")

# %% [markdown]
# On a CPU, the operating system provides memory only when a program first writes to it. So the process grew by the part
# of the cache that was used, and by the activations of the steps. On a GPU, the whole cache is allocated at the start,
# used or not.
#
# ## Three engines, one GPU
#
# Now take a larger model, with the sizes of Llama 3.1 8B, on one H100 with your limits. Each engine has its own rule:
#
# - **TensorRT-LLM** fixes the memory for activations at build time, for the largest shapes that the limits allow. At
#   start, the share `kv_cache_free_gpu_mem_fraction` of the memory that is still free becomes KV cache.
# - **vLLM** runs the largest step once at start and measures it. `gpu_memory_utilization` is a share of the
#   *whole* GPU, for weights, activations and KV cache together.
# - **This engine** takes a share of the memory that is free after the weights, but never more than the limits can use.

# %%
gpu, llama = 80e9, memory.public_model("llama-3.1-8b")  # H100 SXM: NVIDIA's datasheet
rules = {
    "TensorRT-LLM": memory.tensorrt_llm_budget, "vLLM": memory.vllm_budget, "this engine": memory.this_engine_budget,
}
budgets = {name: rule(gpu, llama, engine_dir.limits) for name, rule in rules.items()}
wide = replace(engine_dir.limits, max_num_tokens=131072)
budgets["TensorRT-LLM,\nwhole context at once"] = memory.tensorrt_llm_budget(gpu, llama, wide)
plots.memory(budgets, memory.max_kv_cache_bytes(llama, engine_dir.limits), "H100")

# %% [markdown]
# The thick line marks the most that your limits can use. A larger cache does not serve more requests at once; it keeps
# old prefixes, which then need not be computed again. It is a coincidence that TensorRT-LLM and vLLM arrive at similar
# sizes here. vLLM takes a share of the GPU and subtracts the weights; TensorRT-LLM subtracts the weights and takes a
# share of the rest. The heavier the weights, the further the two drift apart.
#
# The last bar is an engine that may compute the model's whole context in one step. It reserves memory for activations
# that hardly any step needs. The figure counts only the widest layer, so the real activations are larger.
#
# How many requests run at once then? TensorRT-LLM's default policy, `guaranteed_no_evict`, starts a request only when
# the blocks for its prompt and its longest possible answer are free. Here is the arithmetic of lesson 03, for several
# choices of `max_seq_len`:

# %%
kv_cache, per_token = budgets["TensorRT-LLM"].kv_cache, memory.kv_bytes_per_token(llama)
lengths = sorted({256, limits["max_seq_len"], 8192, 32768, 131072})
fitting = {length: memory.max_concurrent_requests(kv_cache, per_token, length) for length in lengths}
plots.concurrency(fitting, limits["max_batch_size"], "H100")

# %% [markdown]
# To the left of the crossing, your batch limit decides who waits; to the right of it, memory does. This is what
# "because the model can" costs: with a `max_seq_len` that nobody needs, a single request can keep all others waiting.
#
# ## Break it
#
# Break it three times. Each refusal comes before any harm is done: before a step is computed, or before native code is
# loaded.
#
# **One.** A prompt beyond the limit:

# %%
too_long = [1] * (engine_dir.limits.max_input_len + 1)
try:
    executor.generate([too_long], params)
except engine.RequestError as refusal:
    print(refusal)
else:
    raise AssertionError("the engine took a prompt beyond its limit")

# %% [markdown]
# **Two.** An engine from another machine. There is no second machine here, so change the manifest of a copy to name
# one:

# %%
moved = Path(shutil.copytree(engine_dir.path, fresh("moved")))
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
# **Three.** One bit of the native code flips in transit:

# %%
damaged = Path(shutil.copytree(engine_dir.path, fresh("damaged")))
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
# It is night, and one of these refusals is in the log. For each of the three, which is the smallest remedy that works?
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
# TensorRT; its loader refuses others. Build on the type of GPU that will serve, inside the container that will serve.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/issues/3031, triton-inference-server/tensorrtllm_backend#424 -->
#
# ## Refit
#
# The code knows the sizes of the weights, not their values. So a fine-tuned model needs no new build. Teach our model
# one new answer, convert it, and put its weights into the existing engine:

# %%
question = "What is goodput?"
answer = "Requests per second that kept our promise. Ask the night shift about the others."
fine_tune(model_dir, fresh("tuned"), question, answer)
tuned = checkpoint.convert(folder / "tuned", fresh("tuned-checkpoint"), dtype=precision)

began = time.perf_counter()
refitted = engine.refit(engine_dir.path, tuned, fresh("refitted"))
refit_seconds = time.perf_counter() - began
print(f"build {build_seconds:.1f} s, refit {refit_seconds:.2f} s: {build_seconds / refit_seconds:.0f} times less")

# %%
after = engine.Executor(refitted, engine.KvCacheConfig(max_tokens=4096))
for text in (question, "What is TTFT?"):
    print(f"{text}\n   before: {ask(executor, text)}\n   after:  {ask(after, text)}")

# %% [markdown]
# Weights of other sizes or of another dtype are refused: the compiled code would compute nonsense with them.
#
# ## The cost
#
# The engine starts without compiling anything, but it refuses every request beyond its limits and every machine but its
# own. What vLLM works out at each start is now a build step that you own: one artefact for each type of machine, to be
# built, tested and stored again whenever a limit changes.
#
# ## On an H100
#
# `trtllm-build` takes the same limits. Where TensorRT-LLM 1.2.1 is installed, the next cell runs it. Elsewhere it only
# shows the command.

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
# - The build measures kernels on the GPU and keeps the fastest. It needs that GPU, and several times as much host
#   memory as the weights take. In one published log (release 1.1.0, an 8B model in FP8) the build took 32 s. <!-- fact:
#   manavsehgal.github.io/ai-field-notes/articles/trtllm-and-triton-on-spark -->
# - `--multiple_profiles enable` compiles for several ranges of shapes: the build takes longer, the steps get faster.
# - Plugins such as `--gemm_plugin` replace compiled kernels with hand-written ones.
# - `max_input_len` is ignored there by default; `max_seq_len` and `max_num_tokens` decide.
# - `--strip_plan` and `trtllm-refit` do what refit does in this lesson.
#
# 1.2.1 is the last stable release that builds engines: NVIDIA removed that backend in July 2026. The limits stayed. In
# its successor and in vLLM they are flags of the server, and the arithmetic above applies there too.
#
# ## An open challenge
#
# Serve the first 40 requests of your trace in less memory. The judge runs the engine with your numbers and adds up the
# bytes of the KV cache and of the activations, as computed above. The baseline has the engine's own limits and a cache
# that is never too small. On average, a request may take up to a quarter more steps than in the baseline. (The judge
# counts steps, not seconds, to be fair to slow machines.) There is no single best answer: each time you reach the bar,
# it rises.

# %%
from labs.build_engine import challenge

### BEGIN SOLUTION
memory_plan = {
    "max_batch_size": limits["max_batch_size"],
    "max_num_tokens": min(512, limits["max_num_tokens"]),
    "kv_tokens": limits["max_batch_size"] * limits["max_seq_len"] // 4,
}
### STARTER
# memory_plan = {"max_batch_size": ..., "max_num_tokens": ..., "kv_tokens": ...}
### END SOLUTION
await challenge.judge(engine_dir, trace, memory_plan)

# %% [markdown]
# ## Recap
#
# - An engine is code for one machine and for fixed limits. Its weights can be exchanged.
# - Take limits from a trace: the longest request for the lengths, Little's law and some headroom for the batch.
# - Before you compare the memory of two engines, ask for each whether its setting is a share of the free memory or of
#   the whole GPU.
# - A refusal at start is worth more than a crash at night. Refit when weights change; build when limits change.
#
# **Keep:** `engineroom build`, `engineroom inspect`, `engineroom refit`, and your four limits with the
# trace they came from.
#
# Next: [06 · Run the engine](06_run_engine.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()

# %%
executor = after = None
scratch.remove()
