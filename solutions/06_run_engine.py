# %% [markdown]
# # 06 · Run the engine
#
# **What does the runtime add?**
#
# An engine computes one step: some prompts, and one more token for some requests. The runtime around it decides which
# requests take part, which wait, which memory they use, and where their tokens go. vLLM has a runtime, TensorRT-LLM
# has one, and ours is small enough to drive by hand. At the end of the lesson, our engine runs against vLLM.
#
# ## What you will be able to do
#
# - read a batch step by step, and explain why a request waits
# - write the rule by which TensorRT-LLM admits requests
# - prove that batching, pausing and prefix reuse change no token
# - compute after how many tokens a build pays for itself
#
# ## Time and money

# %% tags=["parameters"]
model = "course"
rounds = 4

# %%
import math
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import numpy as np
import torch
from transformers import AutoTokenizer

# %%
from engineroom import checkpoint, engine, load, trtllm
from engineroom.compare import BatchWorkload, EngineSettings, compare
from engineroom.engine.runtime.request import Request
from engineroom.kit import process, record
from engineroom.kit.machine import machine
from engineroom.load import workload
from engineroom.openai.start import serve_engine
from engineroom.vllm.model import dtype, local_folder
from labs.kit import show
from labs.kit.check import check, needs
from labs.kit.scratch import scratch_folder
from labs.kit.values import to_dict
from labs.preflight import time_and_money
from labs.run_engine import Arrival, plots, replay

print(time_and_money(6))

# %% [markdown]
# Build an engine as in lesson 05, for up to eight requests at once.

# %%
scratch = scratch_folder("lesson-06")
fresh = scratch.fresh
model_dir, precision = local_folder(model), dtype(machine())
device = "cuda" if torch.cuda.is_available() else "cpu"
limits = engine.BuildConfig(max_batch_size=8, max_input_len=1024, max_seq_len=1536, max_num_tokens=1024)
converted = checkpoint.convert(model_dir, fresh("checkpoint"), dtype=precision)
engine_dir = engine.build(converted, fresh("engine"), limits, device=device, tokenizer_dir=model_dir)

# %% [markdown]
# ## One step at a time
#
# Take three requests and run the loop yourself: each `step()` computes one step and returns its tokens.

# %%
tokenizer = AutoTokenizer.from_pretrained(model_dir)


def tokens_of(question: str, manner: str = "Answer in one sentence.") -> list[int]:
    chat = [{"role": "system", "content": manner}, {"role": "user", "content": question}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


executor = engine.Executor(engine_dir, overlap=0)
for name, answer in {"TTFT": 3, "goodput": 5, "prefill": 2}.items():
    executor.scheduler.add(Request(tokens_of(f"What is {name}?"), engine.SamplingParams(max_tokens=answer)))
while executor.scheduler.has_requests:
    texts = [tokenizer.decode([output.token_id]) for _, output in executor.step()]
    print(f"step {executor.num_steps}: {texts}, {len(executor.scheduler.running)} go on")

# %% [markdown]
# The first step computed three prompts and returned three tokens: that is **context** (vLLM says prefill). Each later
# step computed one token for each remaining request: **generation** (decode). Finished requests left the batch at
# once; none waited for the longest.
#
# Now take ten requests, four slots and steps of at most 96 tokens. `replay` runs the same loop and records each step.

# %%
def prompts(lengths: list[int], seed: int = 6) -> list[list[int]]:
    """Token ids at random; how long a step takes does not depend on them."""
    draw = np.random.default_rng(seed)
    return [draw.integers(2, engine_dir.model.vocab_size, length).tolist() for length in lengths]


answers = [20, 9, 14, 30, 6, 12, 25, 8, 16, 10]
few = [Arrival(*pair) for pair in zip(prompts([30, 12, 60, 25, 150, 18, 40, 90, 15, 22]), answers, strict=True)]
in_steps = replay(engine_dir, few, max_batch_size=4, max_num_tokens=96)
plots.steps(in_steps)

# %% [markdown]
# A free slot is filled in the very next step. Where a step has orange and blue, a prompt was computed together with
# the tokens of other requests: in-flight batching. The prompts of requests 3 and 5 did not fit into what the other
# requests left of a step's 96 tokens, so each was computed in two chunks, in two steps: chunked context. Lesson 03
# showed what in-flight batching and chunks are good for; this lesson is about the rules behind them.
#
# ## Who may start?
#
# A slot is not enough. A request also needs blocks of the KV cache: more and more as its answer grows, and nobody knows
# how many until the answer ends. Here is a busier trace: a new request arrives every other step, and the cache is
# small.

# %%
# NBVAL_CHECK_OUTPUT
turns = workload.chat(requests=24, prompt=60, output=30, spread=0.6, seed=1)
texts = prompts([turn.prompt for turn in turns])
trace = [Arrival(text, turn.output, 2 * n) for n, (text, turn) in enumerate(zip(texts, turns, strict=True))]
longest = max(turn.total for turn in turns)
kv_tokens = 4 * longest
print(f"{len(trace)} requests, the longest has {longest} tokens; the cache holds {kv_tokens}")

# %% [markdown]
# ### Exercise: the admission rule
#
# Write TensorRT-LLM's default rule, `GUARANTEED_NO_EVICT`: a request starts as soon as its longest possible answer is
# sure to fit beside those of all running requests. A request that starts will finish. The scheduler takes care of the
# slots.
#
# - `request` and each request in `running` have `.max_total_tokens`, the most tokens that prompt and answer may reach,
#   and `.block_table.block_ids`, the list of blocks that the request already holds
# - `block_manager.blocks_needed(num_tokens)` is the number of blocks for that many tokens, and
#   `block_manager.num_free_blocks` the number of free blocks

# %%
def in_flight(request, running, block_manager):
    ### BEGIN SOLUTION
    blocks_to_come = sum(
        block_manager.blocks_needed(other.max_total_tokens) - len(other.block_table.block_ids)
        for other in [request, *running]
    )
    return blocks_to_come <= block_manager.num_free_blocks
    ### STARTER
    # ...
    ### END SOLUTION


admission_result = check("06.admission", in_flight)

# %% [markdown]
# Now run your rule in the engine, on this trace. The other rule is `max_utilization`: start whatever fits *now*.
# When the blocks run out, pause the newest request, discard what it computed, and compute it again later.

# %%
needs("06.admission", admission_result or None)
runs = {
    "yours": replay(engine_dir, trace, rule=in_flight, kv_tokens=kv_tokens),
    "max_utilization": replay(engine_dir, trace, policy="max_utilization", kv_tokens=kv_tokens),
}
plots.rules(runs)

# %%
# NBVAL_CHECK_OUTPUT
rows = []
for name, run in runs.items():
    rows.append({
        "rule": name, "steps": len(run.steps), "tokens a step": sum(map(len, run.answers)) / len(run.steps),
        "mean TTFT, steps": statistics.mean(run.ttft_steps), "paused": run.num_preemptions,
        "tokens of context": sum(sum(step.context.values()) for step in run.steps),
    })
show.table(rows, "The same trace under two rules")

# %% [markdown]
# Your rule keeps blocks free for tokens that may never come: a user allows 1,000 tokens, and the answer ends after 50.
# `max_utilization` bets on short answers. When it loses the bet, it computes context again.
#
# TensorRT-LLM has both, `GUARANTEED_NO_EVICT` and `MAX_UTILIZATION`, and the static batching of lesson 03,
# `STATIC_BATCH`. vLLM has one policy, of the second kind, and calls a pause *preemption*. <!-- fact:
# nvidia.github.io/TensorRT-LLM, "Useful Runtime Options"; docs.vllm.ai, "Optimization and Tuning", Preemption -->
#
# ## Is it still the same answer?
#
# A request was computed together with other requests, in chunks, in blocks that others had used before. It may even
# have been paused and computed again. None of that may change a token.
#
# ### Exercise: prove it
#
# Serve `asked` in four ways, each with one `replay(engine_dir, asked, …)`. Its arguments are `rule`, `policy`,
# `kv_tokens`, `reuse`, `max_batch_size` and `max_num_tokens`. The check tests whether each run did what its name says.
#
# - `alone`: never two requests in one step
# - `together`: batched, and no request paused
# - `paused`: with pauses. Which policy pauses requests, and how small must the cache be?
# - `reused`: with prefixes from the cache. All prompts begin alike, but a request that starts in the same step as the
#   first finds nothing in the cache yet.

# %%
manner = "You are the assistant of an engine room, and a patient one. Answer in one sentence and in plain words. "
manner += "Never guess a number: say that you do not know it, and where one could measure it."
names = ["TTFT", "goodput", "prefill", "the KV cache", "paged attention", "a tokenizer", "latency", "the roofline"]
asked = [Arrival(tokens_of(f"What is {name}?", manner), 40) for name in names]
print(f"{len(asked)} prompts of {min(len(arrival.token_ids) for arrival in asked)} tokens and more, answers of 40")

# %%
### BEGIN SOLUTION
proof = {
    "alone": replay(engine_dir, asked, max_batch_size=1),
    "together": replay(engine_dir, asked),
    "paused": replay(engine_dir, asked, policy="max_utilization", kv_tokens=384),
    "reused": replay(engine_dir, asked, reuse=True, max_batch_size=2),
}
### STARTER
# proof = {
#     "alone": ...,
#     "together": ...,
#     "paused": ...,
#     "reused": ...,
# }
### END SOLUTION
same_result = check("06.same", proof, precision)

# %%
needs("06.same", same_result or None)
proof = to_dict(proof)
for name, run in proof.items():
    same = sum(a == b for a, b in zip(run.answers, proof["alone"].answers, strict=True))
    print(f"{name:9} {same} of {len(asked)} as alone; {run.largest_batch} together,", end=" ")
    print(f"{run.num_preemptions} pauses,", end=" ")
    print(f"{run.num_reused_tokens} tokens from the cache, {len(run.steps)} steps")

# %% [markdown]
# In float32 all answers must be equal. In bfloat16, two batch sizes may use two kernels that add in a different order.
# Where two tokens are almost equally likely, the last bit decides, and from there on the answers differ. That is
# rounding, not a leak between requests. It is also why "the same seed" promises less in production than in a test.
#
# ## Streaming
#
# Now let other users in. The same engine runs in a process of its own, behind OpenAI's API, and counts what it does.

# %%
def metric(name: str, label: str = "") -> float:
    """One of the server's numbers; their names are vLLM's."""
    lines = httpx.get(f"{server.url}/metrics", trust_env=False).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"engineroom:{name}") and label in line)


# %% [markdown]
# A user closes the tab in the middle of a long answer. Does the engine notice?

# %%
server = serve_engine(engine_dir.path, served_model_name=model, max_tokens_in_paged_kv_cache=2048)
question = [{"role": "user", "content": "What is in-flight batching?"}]
stream = load.openai_client(server).chat.completions.create(
    model=model, messages=question, max_tokens=1400, stream=True, extra_body={"ignore_eos": True}
)
for number, _ in enumerate(stream, 1):
    if number == 200:
        break
print(f"after {number} pieces: {metric('kv_cache_usage_perc'):.1%} of the cache held")
stream.close()
deadline = time.monotonic() + 60
while metric("num_requests_running"):
    if time.monotonic() > deadline:
        raise TimeoutError("The engine still computes the answer a minute after its reader left.")
    time.sleep(0.01)
num_tokens, num_aborted = metric("generation_tokens_total"), metric("request_success_total", 'reason="abort"')
print(f"tab closed: {metric('kv_cache_usage_perc'):.1%} held; {num_tokens:.0f} of 1400 tokens generated,", end=" ")
print(f"{num_aborted:.0f} request aborted")
server.stop()

# %% [markdown]
# The blocks were free before the next step. A server that does not notice computes the rest for nobody; check yours.
#
# ## Against vLLM
#
# Both engines serve the same requests, and they take turns, so a busy minute of your machine hits both. Model, dtype
# and number of threads are the same. The load is one stream, then eight.

# %%
threads = torch.get_num_threads()  # for which the engine was compiled
settings = EngineSettings.of_engine(engine_dir, model_dir, kv_cache_tokens=8 * 256, threads=threads)
workloads = [BatchWorkload(1, 128, 64), BatchWorkload(8, 128, 64)]
engines = ["aot", "vllm"] + (["aot_without_cuda_graphs"] if device == "cuda" else [])
versus = compare(settings, workloads, engines, rounds=rounds, vocab_size=engine_dir.model.vocab_size)

# %% [markdown]
# The next picture adds what the same code recorded on an H200, with a model of the sizes of Llama 3.1 8B. The right
# panel shows the same comparison over HTTP: each engine behind its own server, 128 tokens in and out. Each dot is one
# round; the black bar is their median. The panels have different scales.

# %%
h200 = "cuda-llama-3.1-8b-bfloat16"
recorded = {n: record.find(f"compare-{h200}-{n}x{'512' if n == 64 else '128'}-256") for n in (1, 16, 64)}
over_http = {n: record.find(f"served-{h200}-{n}x128-128-rate") for n in recorded}


def against_vllm(rates: record.Record) -> list[float]:
    return [aot / vllm for aot, vllm in zip(rates.values["aot"], rates.values["vllm"], strict=True)]


dots = {
    "this machine": {shape.streams: versus.ratios(shape, "vllm")["aot"] for shape in workloads},
    "H200, recorded": {streams: against_vllm(rates) for streams, rates in recorded.items()},
    "H200, over HTTP": {streams: against_vllm(rates) for streams, rates in over_http.items()},
}
plots.ratios(dots)

# %%
print("seconds from the start of the process to the first token")
print(f"  here: {', '.join(f'{name} {seconds[-1]:.1f}' for name, seconds in versus.start_seconds.items())}")
record.find(f"compare-{h200}-start")

# %% [markdown]
# Read it soberly. The course model is tiny: most of a step is the overhead around the model, and the busier your
# machine, the more the dots scatter. The 8B model is the better guide. There, one stream gains most, because its step
# is short. With many streams, both engines wait for the same memory and the same arithmetic. The start is a different
# matter: what vLLM works out at each start, our engine worked out once, when it was built.
#
# ### Exercise: when has the build paid?
#
# A build takes `build` seconds. From then on, the built engine generates `ours` tokens per second; the other generates
# `theirs` and needs no build. Both serve without a pause. After how many tokens has the built engine caught up, its
# build included? If it never does, return `math.inf`.

# %%
def break_even(build: float, ours: float, theirs: float) -> float:
    ### BEGIN SOLUTION
    saved = 1 / theirs - 1 / ours  # seconds for each token
    return build / saved if saved > 0 else math.inf
    ### STARTER
    # ...
    ### END SOLUTION


break_even_result = check("06.break_even", break_even)

# %%
needs("06.break_even", break_even_result or None)
build_seconds = record.find(f"compare-{h200}-engine").summary["build s"].median
rows = []
for streams, rates in recorded.items():
    ours, theirs = (rates.summary[name].median for name in ("aot", "vllm"))
    pays = float(break_even(build_seconds, ours, theirs))
    rows.append({"streams": streams, "ratio": ours / theirs, "tokens": pays, "hours": pays / ours / 3600})
show.table(rows, f"H200: a build of {build_seconds:.0f} s has paid after … (inf: never)")

# %% [markdown]
# If the ratio is clearly above one, a build soon pays for itself; at one or below, it never does. Then you need other
# reasons for an engine: a quick start when a machine joins, or one tested artefact to ship. The reasons against it
# remain: an engine is bound to one type of machine, and somebody must rebuild it whenever the code or a limit changes.
#
# ## What CUDA graphs save
#
# On a GPU, the host *launches* each of the hundreds of kernels in a step, and a short kernel ends before the next
# launch is ready. A **CUDA graph** records the whole sequence once and launches it as one. Our engine captures one
# graph for each batch size when it is loaded. Here is the same engine with and without CUDA graphs.

# %%
plots.cuda_graphs(recorded)
if device == "cuda":
    for shape in workloads:
        speeds = versus.median_rates(shape)
        print(f"here, {shape}: {speeds['aot'] / speeds['aot_without_cuda_graphs']:.2f} times the tokens")
else:
    print("No GPU on this machine: CUDA graphs were not run here. The picture is the record.")

# %% [markdown]
# Look at both numbers. The time saved is host time, and it depends on the number of kernels in a step. The share saved
# depends on how long the GPU computes meanwhile: with many streams or a large model, the GPU hides more of the host's
# work. A graph has fixed shapes, which is one more reason for an engine to know its batch sizes in advance.
#
# ## The cost
#
# In-flight batching keeps the slots full, but each new prompt delays the next token of every other request. Smaller
# chunks shorten that delay, but lengthen the new request's own wait. CUDA graphs save host time in every step, but the
# engine captures one for each batch size when it is loaded: the start takes longer, and the graphs take GPU memory.
#
# ## On an H100
#
# Do the same with TensorRT-LLM 1.2.1 of April 2026, the last stable release with engines: first the server, then the
# LLM API. Where it is not installed, the commands are shown and not run.

# %%
tensorrt = fresh("tensorrt")
build = trtllm.build(checkpoint_dir=converted, output_dir=tensorrt, **{
    name: value for name, value in asdict(limits).items() if name.startswith("max_") and "beam" not in name
})  # fmt: skip
serve = trtllm.serve(
    tensorrt, backend="tensorrt", tokenizer=model_dir, host="127.0.0.1", port=8000,
    max_batch_size=limits.max_batch_size, max_num_tokens=limits.max_num_tokens, max_seq_len=limits.max_seq_len,
)  # fmt: skip
print(str(serve).replace(str(scratch.path), "…").replace(str(model_dir), model))
if serve.available():
    subprocess.run(build.argv, check=True)
    with process.start(serve.argv, name="trtllm-serve", port=8000, timeout=600) as trtllm_server:
        print(load.openai_client(trtllm_server).models.list())
else:
    print("\nTensorRT-LLM is not on this machine: trtllm-serve was not run.")

# %% [markdown]
# `--backend tensorrt` is needed: since 1.0 the default backend is PyTorch, which cannot read an engine. The limits are
# repeated, because the server's defaults may differ from those of the build. The Python API has the same rules as your
# exercise:

# %%
script = Path(trtllm.__file__).with_name("llm_api.py")
print(script.read_text().split('"""', 2)[2].strip())
if trtllm.installed_version():
    line = [sys.executable, "-m", "engineroom.trtllm.llm_api", tensorrt, model_dir]
    print(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
else:
    print("TensorRT-LLM is not on this machine: the LLM API was not run.")

# %% [markdown]
# What came after: in July 2026 engines were removed. `from tensorrt_llm import LLM`, which runs on PyTorch, is now the
# only LLM class. Its scheduler has the same policies, `max_num_tokens`, chunked context and CUDA graphs.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/releases/tag/v1.3.0rc20; nvidia.github.io/TensorRT-LLM, LLM API -->
#
# ## An open challenge
#
# `GUARANTEED_NO_EVICT` keeps blocks free for tokens that may never come, and makes other requests wait.
# `MAX_UTILIZATION` bets on short answers, and pays with context that it computes twice. Write a rule between the two.
# The judge serves a trace that you do not see, and compares the mean TTFT of your rule, counted in steps, with that of
# `GUARANTEED_NO_EVICT`. With your rule, the engine may compute at most a quarter more context. There is no single best
# answer: each time you reach the bar, it rises.

# %%
from labs.run_engine import challenge


def my_rule(request, running, block_manager):
    ### BEGIN SOLUTION
    blocks_to_come = sum(
        block_manager.blocks_needed((len(other.token_ids) + other.max_total_tokens) // 2)
        - len(other.block_table.block_ids)
        for other in [request, *running]
    )
    return blocks_to_come <= block_manager.num_free_blocks
    ### STARTER
    # ...  # requests also have `.token_ids`, the tokens of their prompt and of their answer so far
    ### END SOLUTION


await challenge.judge(engine_dir, my_rule)

# %% [markdown]
# ## Recap
#
# - A step computes context for some requests and one token for others; finished requests leave at once.
# - `GUARANTEED_NO_EVICT` starts requests that are sure to finish. `MAX_UTILIZATION` starts what fits now and pauses
#   requests when blocks run out.
# - Batching changes when a token arrives, not which token it is. In low precision there are rare exceptions, by
#   rounding.
# - A ratio means little without the number of streams. Ask for both, then compute the break-even.
#
# **Keep:** your `in_flight`, your `break_even`, and `engineroom compare offline` for your own model.
#
# Next: [10 · Deploy with Triton](10_deploy_with_triton.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()

# %%
executor = None
scratch.remove()
