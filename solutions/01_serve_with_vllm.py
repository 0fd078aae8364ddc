# %% [markdown]
# # 01 · Serve with vLLM
#
# **How far do good defaults go?**
#
# In lesson 00 a model answered inside one process. Now it becomes a service: many users, one model, an interface that
# every client of the field knows. vLLM is the flexible default for that, and it starts with one command.
#
# ## What you will be able to do
#
# - start vLLM and talk to it by the OpenAI API
# - stream an answer and time its tokens
# - read the server's own counters, and prove with them that requests run together
# - say what the flags that matter cost
#
# ## Time and money

# %% tags=["parameters"]
model = "course"

# %%
import shlex
import time

from engineroom import load, metrics, vllm
from engineroom.kit import record
from labs.kit.check import check
from labs.preflight import time_and_money
from labs.serve_with_vllm import plots

print(time_and_money(1))

# %% [markdown]
# ## One command
#
# This is what starts the server; `{port}` becomes a free port. Type it into a terminal and you get the same.

# %%
print(shlex.join(["vllm", *vllm.command(model)[1:]]))

# %% [markdown]
# Starting takes a while, most of it spent on importing. Three processes appear: one speaks HTTP, one schedules, one
# computes.

# %%
server = vllm.serve(model)

# %% [markdown]
# ## Talk to it
#
# The interface is OpenAI's, so its client works. The model's name is what the server was told to call it.

# %%
client = load.openai_client(server)
answer = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "What is continuous batching?"}], max_tokens=128, temperature=0
)
print(answer.choices[0].message.content)

# %% [markdown]
# A system turn sets the manner. And `usage` counts tokens, which is what you are billed for.

# %%
# NBVAL_CHECK_OUTPUT
chat = [
    {"role": "system", "content": "Answer in upper case."},
    {"role": "user", "content": "What is goodput?"},
]
answer = client.chat.completions.create(model=model, messages=chat, max_tokens=64, temperature=0)
print(answer.choices[0].message.content)
print(answer.usage.prompt_tokens, "tokens in,", answer.usage.completion_tokens, "tokens out")

# %% [markdown]
# ## Stream
#
# A reader need not wait for the last word. With `stream=True` the answer comes in pieces, here one token each.

# %%
question = [{"role": "user", "content": "What is the KV cache?"}]
for chunk in client.chat.completions.create(model=model, messages=question, max_tokens=96, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="·", flush=True)

# %% [markdown]
# ### Exercise: time the tokens
#
# Ask again, and note for each piece of text how many seconds after **sending** it arrived. `time.perf_counter()` is
# the clock to use: it never jumps.

# %%
times = []
### BEGIN SOLUTION
sent = time.perf_counter()
for chunk in client.chat.completions.create(model=model, messages=question, max_tokens=96, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        times.append(time.perf_counter() - sent)
### STARTER
# times = ...  # ask as in the cell above; append one number for each piece of text
### END SOLUTION
check("01.streaming", times)

# %%
plots.tokens(times)

# %% [markdown]
# Two different waits are in this picture. The first token needs the whole prompt to be computed: **time to first
# token**, TTFT. Each further one needs a step of the engine: **inter-token latency**, ITL. Lesson 02 measures both
# properly.
#
# ## What the server says about itself
#
# vLLM counts everything at `/metrics`, in the format that Prometheus reads. First make the service real, then
# observable: this page is the second level.

# %%
now = metrics.scrape(server)
for name in ("generation_tokens_total", "prompt_tokens_total", "num_requests_running", "kv_cache_usage_perc"):
    print(f"vllm:{name:26} {now[name]:g}")

# %% [markdown]
# Two kinds of number: a **gauge** is true now (`num_requests_running`), a **counter** has grown since the server
# started (`…_total`). Only the change of a counter over time tells you anything.
#
# ### Exercise: from a counter to a rate
#
# `before` and `after` are two such pages, with the moment they were read in `.time`. How many tokens per second did
# the server **generate** in between?

# %%
def tokens_per_second(before: metrics.Metrics, after: metrics.Metrics) -> float:
    ### BEGIN SOLUTION
    change = after - before
    return change["generation_tokens_total"] / change.time
    ### STARTER
    # ...  # `after - before` subtracts every value, and the times
    ### END SOLUTION


check("01.counters", tokens_per_second)

# %% [markdown]
# ## Sixteen at once
#
# First four questions, one after another, as a script would ask them.

# %%
terms = """TTFT, KV cache, goodput, prefill, decode, batch size, throughput, latency, paged attention, tokenizer,
tensor parallelism, quantization, roofline, speculative decoding, prefix caching, open loop""".replace("\n", " ")
questions = [[{"role": "user", "content": f"What is {term.strip()}?"}] for term in terms.split(",")]

before = metrics.scrape(server)
for one in questions[:4]:
    await load.fire(server, [one], 96, model=model, temperature=0)
change = metrics.scrape(server) - before
alone = change["generation_tokens_total"] / change.time
print(f"one after another: {alone:.0f} tokens/s")

# %% [markdown]
# Now all sixteen at once, while a second connection keeps reading vLLM's counters. `ignore_eos` makes each answer as
# long as we say, from short to long, so that the picture shows who leaves when.

# %%
before = metrics.scrape(server)
with metrics.Watch(server, interval=0.05) as watch:
    traces = await load.fire(server, questions, range(40, 200, 10), model=model, ignore_eos=True)
change = metrics.scrape(server) - before
together = change["generation_tokens_total"] / change.time
print(f"together: {together:.0f} tokens/s, {together / alone:.1f} times as many")

# %%
plots.timeline(traces, watch.samples)

# %% [markdown]
# Each line is one request, from the client's clock; the lower half is what vLLM says. The dots of different requests
# stand above each other: one step of the engine makes one token for **every** running request. A request that is done
# leaves at once, and its place is free for the next. That is continuous batching (in TensorRT-LLM's words: in-flight
# batching).
#
# ### Exercise: prove it from the counters
#
# Pictures persuade, counters prove. `iteration_tokens_total_count` counts the engine's steps. How many requests got
# a token in an average step?

# %%
def mean_batch(change: metrics.Metrics) -> float:
    ### BEGIN SOLUTION
    return change["generation_tokens_total"] / change["iteration_tokens_total_count"]
    ### STARTER
    # ...  # from change["generation_tokens_total"] and change["iteration_tokens_total_count"]
    ### END SOLUTION


check("01.batching", mean_batch, change)

# %% [markdown]
# ## The flags that matter
#
# | flag | what it decides | what more of it costs |
# |---|---|---|
# | `--max-num-seqs` | how many requests run together | memory for their KV; slower steps for each |
# | `--max-model-len` | prompt plus answer, in tokens | KV memory that one request may take |
# | `--max-num-batched-tokens` | tokens in one step, prompts included | longer steps: others wait for a long prompt |
# | `--gpu-memory-utilization` | share of the GPU that vLLM takes | nothing left for anybody else |
# | `--dtype`, `--quantization`, `--kv-cache-dtype` | bytes for a weight, for a cached value | quality (lesson 07) |
# | `--enforce-eager` | no compilation, no CUDA graphs | slower steps, for a faster start |
#
# One of them, felt: the same server, with places for four.
#
# ### Exercise: predict, then look
#
# Sixteen requests of equal length arrive together, and at most four run. In how many waves are they answered? And how
# many wait, when the queue is longest? Write both numbers **before** you run the next cells; the check comes after.

# %%
max_num_seqs = 4
### BEGIN SOLUTION
waves = 4
longest_queue = 12
### STARTER
# waves = ...
# longest_queue = ...
### END SOLUTION
server = vllm.serve(model, max_num_seqs=max_num_seqs)

# %%
with metrics.Watch(server, interval=0.05) as watch:
    few = await load.fire(server, questions, 48, model=model, ignore_eos=True, temperature=0)
plots.timeline(few, watch.samples)
server.stop()

# %%
measured_queue = max(sample["num_requests_waiting"] for sample in watch.samples)
check("01.waves", waves, longest_queue, len(questions), max_num_seqs, measured_queue)

# %% [markdown]
# The grey lines are people waiting. A limit protects the running requests and makes the others queue: that is a
# decision about users, not about software. Lesson 02 puts numbers to it.
#
# ## On an H100
#
# The same cells, with a model that needs the GPU: run this lesson there with `model = "Qwen/Qwen2.5-7B-Instruct"`.
# The command becomes:

# %%
print(vllm.on_h100("Qwen/Qwen2.5-7B-Instruct", max_model_len=8192, max_num_seqs=256, gpu_memory_utilization=0.9))

# %% [markdown]
# What batching does on such a GPU was recorded with this lab's own code: a model of the shape of Llama 3.1 8B.

# %%
record.find("vllm-h200-8b-streams")

# %% [markdown]
# ## Recap
#
# - One command makes a service; the interface is OpenAI's, the counters are Prometheus'.
# - Time to first token and inter-token latency are different waits, with different causes.
# - Batching is why a server beats a script: one step serves every running request.
# - A limit does not remove waiting. It decides who waits.
#
# **Keep:** `vllm.serve`, the counters you know by name, and the picture of sixteen requests.
#
# Next: [02 · Measure](02_measure.ipynb)
