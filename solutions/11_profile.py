# %% [markdown]
# # 11 · Profile
#
# **Where did the time go?**
#
# A server is too slow, and everybody in the room knows why: the model, the network, Python. They are guessing. In this
# lesson you measure what your machine can do at best, count what a step must do, and read in a trace what the rest of
# the time went into. At the end you get a server with a fault in it, and you find and mend it by the evidence.
#
# ## What you will be able to do
#
# - measure the roof of a machine, and say how far below it an engine runs
# - count the operations and bytes of a step from a model's `config.json`
# - read a trace: calls, self time, gaps
# - name a bottleneck by its evidence, mend it, and prove with a second trace that it is gone
#
# ## Time and money

# %% tags=["parameters"]
model = "course"

# %%
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import torch

# %%
from engineroom import checkpoint, engine, vllm
from engineroom.compare import BatchWorkload
from engineroom.kit.machine import machine
from engineroom.load.shape import SHAPES
from engineroom.profile.counts import count_step
from engineroom.profile.record import profile_engine, profile_vllm
from engineroom.profile.table import trace_table
from engineroom.profile.trace import read_trace
from engineroom.vllm.model import dtype, local_folder
from labs.kit import memory, show
from labs.kit.check import check, needs
from labs.kit.scratch import scratch_folder
from labs.preflight import time_and_money
from labs.profile import challenge, planted, plots, runs
from labs.profile.serving import Server, host_spans, profile_serving

print(time_and_money(11))

# %% [markdown]
# ## The roof of your machine
#
# A step of an engine reads numbers from memory and multiplies them. Neither can go faster than the machine allows, so
# two figures bound every step: how many bytes a second the memory delivers, and how many operations a second the cores
# compute. A multiplication and an addition count as two operations. Datasheets have such figures too; these are
# measured, on the machine in front of you. Each is measured several times and the best one counts, because other
# programs can only lower it.

# %%
model_dir, precision = local_folder(model), dtype(machine())
device = "cuda" if torch.cuda.is_available() else "cpu"
ceilings = runs.highest_ceilings(device, precision)
bandwidth, matrix_rate = ceilings.read_bytes_per_s, ceilings.operations_per_s[precision]
print(f"{ceilings.device_name}: memory is read at {bandwidth / 1e9:.1f} GB/s;", end=" ")
print(f"products in {precision} reach {matrix_rate / 1e9:,.0f} billion operations per second;", end=" ")
print(f"a call that computes nothing takes {ceilings.operator_call_s * 1e6:.1f} µs")

# %% [markdown]
# Put both into one picture. The horizontal axis is the **arithmetic intensity** of some work: its operations for each
# byte that it reads. Little work for each byte, and memory binds: the rate grows with the intensity. Much work for each
# byte, and the cores bind. This picture is the **roofline**. No program gets above it. <!-- fact: Williams et al.,
# "Roofline: An Insightful Visual Performance Model for Multicore Architectures", 2009 -->

# %%
plots.roofline(ceilings, precision)

# %% [markdown]
# ## What a step must do
#
# Where under this roof does a language model stand? Count. A **decode step** computes one new token for each sequence
# of the batch, and most of it is matrix products. Here are the sizes of the course model.

# %%
# NBVAL_CHECK_OUTPUT
config = json.loads((model_dir / "config.json").read_text())
sizes = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
print({name: config[name] for name in (*sizes, "head_dim", "vocab_size", "tie_word_embeddings")})

# %% [markdown]
# ### Exercise: operations and bytes
#
# `batch` sequences get one token each. Each new token attends to `context` tokens, itself included.
#
# - `step_operations`: the operations of all matrix products. Each layer has four attention matrices (query, key, value,
#   output) and three of the MLP (gate, up, down); behind the last layer stands the head, `vocab_size` × `hidden_size`.
#   In attention itself, each query head multiplies its query by `context` keys, and the resulting weights by `context`
#   values.
# - `step_bytes`: the bytes that the step cannot avoid reading, the weights of these matrices and the keys and values of
#   each sequence. A value has `itemsize` bytes. In an MLP or in a projection, one reading of a weight serves the whole
#   batch.
#
# Norms, the rows of the embedding, activations and the one new key are less than one per cent: leave them out.

# %%
def matrix_weights(config: dict) -> int:
    ### BEGIN SOLUTION
    query_size = config["num_attention_heads"] * config["head_dim"]
    kv_size = config["num_key_value_heads"] * config["head_dim"]
    attention = config["hidden_size"] * (2 * query_size + 2 * kv_size)
    mlp = 3 * config["hidden_size"] * config["intermediate_size"]
    return config["num_hidden_layers"] * (attention + mlp) + config["vocab_size"] * config["hidden_size"]
    ### STARTER
    # ...  # the values in all matrices together: both functions need them
    ### END SOLUTION


# %%
def step_operations(config: dict, batch: int, context: int) -> int:
    ### BEGIN SOLUTION
    query_values = config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"]
    return 2 * batch * (matrix_weights(config) + 2 * query_values * context)
    ### STARTER
    # ...
    ### END SOLUTION


def step_bytes(config: dict, batch: int, context: int, itemsize: int) -> int:
    ### BEGIN SOLUTION
    kv_values = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return itemsize * (matrix_weights(config) + kv_values * context * batch)
    ### STARTER
    # ...
    ### END SOLUTION


check("11.counts", step_operations, step_bytes)

# %% [markdown]
# What does the batch do to the intensity? Guess before you run the cell. On an H100, memory binds below about 300
# operations per byte in bfloat16. <!-- fact: NVIDIA H100 SXM datasheet: 989 TFLOPS dense bfloat16, 3.35 TB/s -->

# %%
# NBVAL_CHECK_OUTPUT
needs("11.counts", step_operations(config, 1, 1), step_bytes(config, 1, 1, 1))
rows = []
for name, shape in {"course model": config, "Llama 3.1 8B": SHAPES["llama-3.1-8b"]}.items():
    for context in (256, 8192):
        intensity = {
            f"batch {batch}": step_operations(shape, batch, context) / step_bytes(shape, batch, context, 2)
            for batch in (1, 4, 16, 64, 256)
        }
        rows.append({"model": name, "context": context, **intensity})
show.table(rows, "Operations per byte of a decode step, 2 bytes a value")

# %% [markdown]
# With one sequence, there is about one operation for each byte. A GPU can hardly be used worse, and every chat that
# runs alone uses it this way. A batch reads the weights once for all of its sequences, so the intensity grows nearly
# with the batch. But each sequence reads a KV cache of its own: with long contexts, the growth ends early.
#
# ## Your engine under the roof
#
# ### Exercise: how far below?
#
# `bandwidth` is in bytes per second and `matrix_rate` in operations per second.
#
# - `attainable`: the highest rate, in operations per second, at which this work can be done
# - `share_of_roof`: the rate that was reached in `seconds`, as a share of the attainable one; 1 is a step on the roof

# %%
def attainable(operations: float, num_bytes: float, bandwidth: float, matrix_rate: float) -> float:
    ### BEGIN SOLUTION
    return min(matrix_rate, operations / num_bytes * bandwidth)
    ### STARTER
    # ...
    ### END SOLUTION


def share_of_roof(
    operations: float, num_bytes: float, seconds: float, bandwidth: float, matrix_rate: float
) -> float:
    ### BEGIN SOLUTION
    return operations / seconds / attainable(operations, num_bytes, bandwidth, matrix_rate)
    ### STARTER
    # ...
    ### END SOLUTION


check("11.roof", attainable, share_of_roof)

# %% [markdown]
# Build our engine, as in lesson 05, and time its steps: decode with 1, 4 and 16 sequences of about 256 tokens, and the
# prefill of one prompt of 512 tokens. Each is timed several times; the quickest counts, because other programs on your
# machine disturbed it least.

# %%
folder = scratch_folder("lesson-11")
limits = engine.BuildConfig(max_batch_size=16, max_input_len=1024, max_seq_len=1536, max_num_tokens=1024)
converted = checkpoint.convert(model_dir, folder.fresh("checkpoint"), dtype=precision)
engine_dir = engine.build(converted, folder.fresh("engine"), limits, device=device, tokenizer_dir=model_dir)

# %%
CONTEXT, PROMPT = 256, 512
steps = [runs.measure_decode(engine_dir, batch, CONTEXT) for batch in (1, 4, 16)]
steps.append(runs.measure_prefill(engine_dir, PROMPT))
print(*(f"{step.name}: {1000 * step.seconds:.2f} ms" for step in steps), sep="\n")

# %% [markdown]
# Now place each step as a point. Your functions count the decode steps. For the prefill, the library counts: a prompt
# of 512 tokens multiplies 512 vectors by the weights that it has read once.

# %%
needs("11.counts and 11.roof", step_operations(config, 1, 1), step_bytes(config, 1, 1, 1), attainable(1, 1, 1, 1))
itemsize = memory.itemsize(precision)
work = {
    f"decode, batch {batch}": (step_operations(config, batch, CONTEXT), step_bytes(config, batch, CONTEXT, itemsize))
    for batch in (1, 4, 16)
}
prefill = count_step(engine_dir.model, steps[-1].step)
work[steps[-1].name] = (prefill.operations, prefill.num_bytes)
points = {step.name: (work[step.name][0] / work[step.name][1], work[step.name][0] / step.seconds) for step in steps}
plots.roofline(ceilings, precision, points)

# %% [markdown]
# A larger batch walks right, and its rate rises with it: the weights had to be read anyway. The dotted lines are what
# is lost. The course model is so small that its weights may stay in the processor's cache from one step to the next.
# Then a point can even stand above the slope, because the slope is the rate of the *memory*.
#
# ## Fully utilised
#
# Dashboards show **utilisation**. On a CPU it is the share of the time in which the cores run any program; on a GPU,
# `nvidia-smi` shows the share of the time in which any kernel ran. Compare it with the share of the roof. <!-- fact:
# docs.nvidia.com, nvidia-smi: utilization.gpu is the "percent of time over the past sample period during which one or
# more kernels was executing on the GPU" -->

# %%
needs("11.roof", share_of_roof(1, 1, 1, 1, 1))
shares = [float(share_of_roof(*work[step.name], step.seconds, bandwidth, matrix_rate)) for step in steps]
plots.utilisation(steps, shares)

# %% [markdown]
# Utilisation says that something runs. It does not say how well: a core that waits for memory is busy, and so is a
# thread that spins until another one is ready. Do not buy a second GPU because the first one shows a full bar.
#
# ## A trace
#
# The roof says how much time is lost, not where. For that you record a **trace**: the begin and the end of everything
# that ran. Our engine names the parts of its steps with *ranges*; PyTorch's profiler records them together with
# PyTorch's own operators. The next cell serves eight requests and records twelve steps.

# %%
load, skip = BatchWorkload(8, 128, 64), 24  # the first steps have prompts in them
engine_trace = read_trace(profile_engine(engine_dir, load, steps=12, out=folder.fresh("engine-trace"), skip=skip))
spans = host_spans(engine_trace)
plots.timeline(spans)

# %% [markdown]
# Each bar is a **span**. A span that was called by another one lies below it: a step schedules, computes a generation
# step, samples, reads the tokens. The compiled graph of the model is one call for the profiler, so it is `generation`
# itself that takes the time. On a GPU, each kernel of the graph is a span of its own.
#
# ### Exercise: self time
#
# How much time did each name take? Its **total time** counts from begin to end. Nearly all of that belongs to what it
# calls. Its **self time** leaves out the spans directly within its own. Only self times can be added up.
#
# `spans` is a list of `Span(name, begin, end, thread)` in no particular order, in microseconds. Spans of one thread are
# nested or apart; spans of two threads only run at the same time. Return a dictionary: name → self time, summed over
# all calls.

# %%
def self_times(spans: list) -> dict[str, float]:
    ### BEGIN SOLUTION
    times: dict[str, float] = {}
    open_spans: dict[int, list] = {}  # by thread, the innermost one last
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        around = open_spans.setdefault(span.thread, [])
        while around and around[-1].end <= span.begin:
            around.pop()
        duration = span.end - span.begin
        times[span.name] = times.get(span.name, 0) + duration
        if around:
            times[around[-1].name] -= duration
        around.append(span)
    return times
    ### STARTER
    # ...
    ### END SOLUTION


check("11.self_time", self_times)

# %% [markdown]
# The library's table is computed in the same way, from ranges and from PyTorch's operators. It adds a column, the
# **gap**: for how long no operator had run when the calls began.

# %%
needs("11.self_time", self_times(spans))
own = dict(self_times(spans))
rows = [
    {"name": row.name, "kind": row.category, "calls": row.calls, "total ms": row.total_us / 1000,
     "self ms": row.self_us / 1000, "gap before ms": row.gap_before_us / 1000}
    for row in trace_table(engine_trace)[:10]
]  # fmt: skip
show.table(rows, "Twelve steps of our engine; your self times of the ranges are below")
print(", ".join(f"{name} {time / 1000:.3g} ms" for name, time in sorted(own.items(), key=lambda item: -item[1])))

# %% [markdown]
# Your self times are a little larger where a range calls operators, which have rows of their own in the table. Look at
# the gap before `aten::copy_`: it is the time of the compiled graph, which is no operator. On a GPU each kernel is
# recorded, and a gap on its stream is time in which the GPU had nothing to do.
#
# ## vLLM's own trace
#
# vLLM's engine runs in a process of its own. A profiler in your kernel, or in the API server, sees nothing of it. So
# vLLM has endpoints: you start it with `--profiler-config`, and a POST to `/start_profile` or `/stop_profile` turns the
# profiler of its worker on or off. The next cell starts vLLM, sends it the same load, and reads the worker's trace.

# %%
vllm_trace = read_trace(profile_vllm(model, load, 12, folder.fresh("vllm-trace"), skip=skip))
processes = {event.thread[0] for event in vllm_trace.events}
print(f"this kernel is process {os.getpid()}; vLLM's events come from {', '.join(sorted(processes))}")

# %%
rows = [
    {"name": row.name[:60], "kind": row.category, "calls": row.calls, "total ms": row.total_us / 1000,
     "self ms": row.self_us / 1000}
    for row in trace_table(vllm_trace)[:12]
]  # fmt: skip
show.table(rows, "Twelve steps of vLLM's worker, the longest self time first")

# %% [markdown]
# Here the model is not one compiled call: each layer calls PyTorch's operators, one after the other. Look at the number
# of calls. At the top of this lesson you measured what one call costs that computes nothing.
#
# ## What the profiler costs
#
# Writing down every event takes time. Measure it, or you will mend the profiler. The cell times two pieces of work with
# and without it, in turns, so that a busy minute of your machine hits both: a decode step of our engine, and a sampler
# written in PyTorch's operators, which you will meet again at the end. Each dot is one run. A tenth of the runs are
# quicker than the bar; other programs disturbed those to the right of it.

# %%
batch = challenge.batches()[0]
costs = {
    "decode step": runs.profiler_cost(runs.decode_step(engine_dir, 8, 128, steps=100)),
    "sampler": runs.profiler_cost(lambda: challenge.sample_rows(*batch)),
}
plots.profiler_costs(costs)
for name, cost in costs.items():
    print(f"{name}: {cost.events:.0f} events, {cost.ratio:.2f} times as long with the profiler")

# %% [markdown]
# You pay for events, not for time. A decode step has few of them, and its ratio is lost in the noise of the machine; a
# sampler has hundreds within a moment. So short calls look slower in a trace than they are. Numbers of calls survive a
# profiler, and large shares do. Never quote a latency that was measured under one.
#
# ## Somebody's bottleneck
#
# Now for a server in which something is wrong. It runs on the same engine. One thread does everything, as the event
# loop of a small server does: it schedules, computes a step, chooses tokens and turns them into text. Three functions
# are the server's own:
#
# - `choose_token`, once for each token: the token with the largest logit
# - `cache_layout`, in each step once for the keys and once for the values of each layer: the KV cache, contiguous
# - `detokenize`, once for each token: the text that it adds
#
# One of the three has a bottleneck; which one was drawn for you. Every answer is right, only late.

# %%
ANSWER = 96
server = Server(engine_dir, kv_tokens=2048)
draw = np.random.default_rng(11)
prompts = [draw.integers(2, engine_dir.model.vocab_size, 20 + n).tolist() for n in range(12)]
functions = planted.planted_for("11.bottleneck")
before = profile_serving(server, prompts, ANSWER, functions)
plots.timeline(before.spans)

# %% [markdown]
# ### Exercise: name it, mend it, prove it
#
# First the evidence. `span` is the name that the trace accuses. `calls` is the number of its spans in `before.spans`,
# and `share` its self time divided by the self times of all spans, from 0 to 1. The engine's own ranges, such as
# `forward`, are no suspects.

# %%
needs("11.self_time", self_times(spans))
own = self_times(before.spans)
print("self times in µs:", {name: round(time) for name, time in own.items()})

# %%
### BEGIN SOLUTION
suspects = ("choose_token", "cache_layout", "detokenize")
span = max(suspects, key=lambda name: own[name])
evidence = {
    "span": span,
    "calls": sum(other.name == span for other in before.spans),
    "share": own[span] / sum(own.values()),
}
### STARTER
# evidence = {
#     "span": ...,
#     "calls": ...,
#     "share": ...,
# }
### END SOLUTION
print(evidence)

# %% [markdown]
# Here is the source of the function that you accuse. What does it do that its result does not need?

# %%
needs("11.bottleneck", *evidence.values())
print(inspect.getsource(getattr(functions, evidence["span"])))

# %% [markdown]
# Write it again, with the same arguments and the same result. Then serve the same requests with it.

# %%
### BEGIN SOLUTION
def greedy(logits):
    return int(logits.argmax())  # one number leaves the tensor


def as_it_is(cache):
    return cache.contiguous()  # copies only what is not contiguous, and it is


def from_the_last_text(token_ids, num_sent, decode):
    begin = max(0, num_sent - 4)  # a few tokens before: they decide about a space, for instance
    sent, text = decode(token_ids[begin:num_sent]), decode(token_ids[begin:])
    return "" if text.endswith("\ufffd") else text[len(sent) :]


mended = {"choose_token": greedy, "cache_layout": as_it_is, "detokenize": from_the_last_text}[evidence["span"]]
### STARTER
# def mended(*arguments):
#     ...
### END SOLUTION

# %%
needs("11.bottleneck", mended)
after = profile_serving(server, prompts, ANSWER, planted.with_function(functions, evidence["span"], mended))
check("11.bottleneck", evidence, before, after)

# %%
plots.times({"before": before.spans, "after": after.spans})
what = planted.UNITS[evidence["span"]]
print(f"{before.counts[evidence['span']]:,} {what} before, {after.counts[evidence['span']]:,} after")

# %% [markdown]
# The check compared tokens, texts and numbers of calls. It counted, in a run without the profiler, what your function
# touched, and read the share of the span in each trace. It compared no times of two runs: on a machine that others use,
# a faster run proves nothing.
#
# All three occur in real servers. A row of logits that is read back to the host costs more on a GPU: the host waits for
# the device, and launches the next step late. A cache is copied because some kernel wanted another order. And a
# tokenizer that decodes too much on the event loop holds up every stream, not only its own.
#
# ## The cost
#
# A profiler changes what it measures, and the larger its trace, the more. A roofline counts what a step *must* do, so
# it says nothing of work that should not be done at all: a needless copy at full bandwidth is a point on the roof.

# %% [markdown]
# ## On an H100
#
# The method stays; the tools are NVIDIA's. **Nsight Systems** (`nsys`) records the whole machine: kernels, copies, CUDA
# calls and NVTX ranges, on one axis of time. Four settings decide whether the report shows anything:
#
# - `--capture-range=cudaProfilerApi --capture-range-end=stop`: the program says when to begin and to end. In our trial,
#   a report without a capture range looked fine and had only the first two kernels in it. <!-- fact: our trial on an
#   H200, driver 580, nsys 2023.4.4 -->
# - `--cuda-graph-trace=node`: without it, the kernels inside a CUDA graph are missing, which is nearly all of decode.
# - `--trace-fork-before-exec=true`: vLLM's engine is a child process.
# - Profiler and importer must be of one release; a newer report opens empty in an older program.
#
# vLLM calls the CUDA profiler between `/start_profile` and `/stop_profile` when it is started with the profiler `cuda`.
# The second command profiles our engine, whose parts become NVTX ranges.

# %%
NSYS = [
    "nsys", "profile", "--trace=cuda,nvtx", "--capture-range=cudaProfilerApi", "--capture-range-end=stop",
    "--cuda-graph-trace=node", "--trace-fork-before-exec=true",
]  # fmt: skip
serve_vllm = vllm.on_h100("meta-llama/Llama-3.1-8B-Instruct", profiler_config='{"profiler": "cuda"}')
print(shlex.join(NSYS), "--output=vllm", serve_vllm)
under_nsys = [*NSYS, f"--output={folder.path / 'engine'}", sys.executable, "-m", "labs.profile.under_nsys"]
print(shlex.join(NSYS), "--output=engine python -m labs.profile.under_nsys ENGINE")
if device == "cuda" and shutil.which("nsys"):
    subprocess.run([*under_nsys, str(engine_dir.path)], check=True)
    report = f"{folder.path / 'engine'}.nsys-rep"
    stats = ["nsys", "stats", "--report=cuda_gpu_kern_sum,nvtx_gpu_proj_sum", "--force-export=true", report]
    print(subprocess.run(stats, check=True, stdout=subprocess.PIPE, text=True).stdout)
else:
    print("There is no GPU with nsys on this machine: neither command was run.")

# %% [markdown]
# **Nsight Compute** (`ncu`) looks into one kernel: its bytes, its operations, its share of each roof. It runs the
# kernel several times and needs the GPU's performance counters, which many shared hosts forbid (`ERR_NVGPUCTRPERM`);
# the machine card of lesson 00 says whether yours does. `--clock-control=none` leaves the clocks alone. The engine runs
# without CUDA graphs here, so that `ncu` sees single kernels.

# %%
ncu = [
    "ncu", "--clock-control=none", "--set=roofline", "--launch-skip=20", "--launch-count=1",
    "--kernel-name=regex:gemm|gemv|matmul",
]  # fmt: skip
print(shlex.join(ncu), "python -m labs.profile.under_nsys --no-cuda-graphs ENGINE")
if device == "cuda" and shutil.which("ncu") and machine().gpu_counters:
    line = [*ncu, sys.executable, "-m", "labs.profile.under_nsys", "--no-cuda-graphs", str(engine_dir.path)]
    print(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)
else:
    print("There is no GPU with ncu and its counters on this machine: the command was not run.")

# %% [markdown]
# We have not run these two cells on an H100 yet. What was run on an H200, by hand, is a small program under the same
# four settings of `nsys`.
#
# ## An open challenge
#
# A sampler runs outside the model's graph, operator by operator, and on a GPU each operator is a launch. Write a
# sampler with as few operators as possible. It gets the `logits` and the `noise` of a batch, [batch, vocab_size], and a
# `temperature` and a `top_k` (from 1 up) for each request. The new token is the one with the largest `logits /
# temperature + noise` among those whose logit is not below the `top_k`-th largest. The judge counts PyTorch operators
# and compares with a sampler that takes one request after the other. Every token must stay the same. Views such as
# `x[:, None]` are free. Values may not be read into Python: there the host would wait. There is no single best answer:
# each time you reach the bar, it rises.

# %%
def sample(logits, temperature, top_k, noise):
    ### BEGIN SOLUTION
    scores = logits / temperature[:, None]  # [batch, vocab_size]
    smallest = scores.sort(descending=True).values.gather(1, top_k[:, None] - 1)
    return (scores.masked_fill(scores < smallest, -torch.inf) + noise).argmax(-1)
    ### STARTER
    # return challenge.sample_rows(logits, temperature, top_k, noise)  # the baseline, one request after the other
    ### END SOLUTION


await challenge.CHALLENGE.judge(challenge.measure(sample))

# %% [markdown]
# ## Recap
#
# - Two ceilings bound a step. Below the ridge of the roofline memory binds, above it the matrix rate.
# - Decode has about one operation per byte and sequence; batching walks right, until the KV cache dominates.
# - Utilisation says that something runs. The share of the roof says how well.
# - In a trace, add up self times, look at calls and gaps, and mistrust every duration: the profiler is in it.
# - A bottleneck is proven by a second trace with the same tokens, not by a stopwatch.
#
# **Keep:** `step_operations`, `step_bytes` and `share_of_roof`: with them you can say in a minute whether there is
# anything left to win.

# %%
from labs.kit.course_map import show_map

show_map()

# %%
server = None
folder.remove()
