# %% [markdown]
# # 01 · Serve with vLLM
#
# **How far do good defaults go?**
#
# In lesson 00 a model answered inside one process. Now it becomes a service: many users, one model, and an interface
# that every client knows. vLLM is the flexible default for this, and it starts with one command.
#
# ## What you will be able to do
#
# - start vLLM and talk to it through the OpenAI API
# - stream an answer and time its tokens
# - read the server's own counters and use them to prove that requests run together
# - name the flags that matter and what each costs
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
from labs.serve_with_vllm.wire import WireTimes

print(time_and_money(1))

# %% [markdown]
# ## One command
#
# This command starts the server. Try it in a terminal of JupyterLab (**File > New > Terminal**) if you like; Ctrl-C
# stops the server. In any other terminal, first run `source .venv/bin/activate` in the course's folder.

# %%
print(shlex.join(["vllm", *vllm.command(model, port=8000)[1:]]))

# %% [markdown]
# Starting takes a while, mostly for Python's imports. On a CPU, three processes appear: one speaks HTTP, one schedules,
# one computes. On a single GPU, the last two are one process.

# %%
server = vllm.serve(model)

# %% [markdown]
# ## Talk to it
#
# The interface is OpenAI's, so OpenAI's client works. The model's name is the one that the server was started with.

# %%
client = load.openai_client(server)
answer = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "What is continuous batching?"}], max_tokens=128, temperature=0
)
print(answer.choices[0].message.content)

# %% [markdown]
# A system message sets the style of the answer. `usage` counts tokens, and tokens are what you are billed for.

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
# Readers need not wait for the last word. With `stream=True` the answer arrives in pieces, each as soon as it is there.
# A piece is one token, or several tokens when the server's machine is busy.

# %%
question = [{"role": "user", "content": "What is the KV cache?"}]
for chunk in client.chat.completions.create(model=model, messages=question, max_tokens=96, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        print(chunk.choices[0].delta.content, end="·", flush=True)

# %% [markdown]
# ### Exercise: time the tokens
#
# Ask again. For each piece of text, note how many seconds passed between **sending** the request and its arrival. Use
# the clock `time.perf_counter()`: it never jumps. Meanwhile `wire` notes when the bytes leave and arrive, so that the
# check can compare your times with its own.

# %%
wire = WireTimes(client, server)
times = []
### BEGIN SOLUTION
sent = time.perf_counter()
for chunk in client.chat.completions.create(model=model, messages=question, max_tokens=96, stream=True):
    if chunk.choices and chunk.choices[0].delta.content:
        times.append(time.perf_counter() - sent)
### STARTER
# times = ...  # ask as in the cell above; append one number for each piece of text
### END SOLUTION
check("01.streaming", times, wire.facts())

# %%
plots.tokens(times)

# %% [markdown]
# This picture shows two different waits. Before the first token, the engine computes the whole prompt: **time to first
# token**, TTFT. Before each further token, it computes one step: **inter-token latency**, ITL. Lesson 02 measures both
# properly.
#
# ## What the server reports about itself
#
# So far the service is real. Now make it observable: vLLM publishes its counters at `/metrics`, in the format that
# Prometheus reads.

# %%
now = metrics.scrape(server)
for name in ("generation_tokens_total", "prompt_tokens_total", "num_requests_running", "kv_cache_usage_perc"):
    print(f"vllm:{name:26} {now[name]:g}")

# %% [markdown]
# There are two kinds of number. A **gauge** holds a value of this moment (`num_requests_running`). A **counter** grows
# from the start of the server (`…_total`); only its change over time tells you anything.
#
# ### Exercise: from a counter to a rate
#
# `before` and `after` are two readings of this page, each with the time of the reading in `.time`. How many tokens per
# second did the server **generate** in between?

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
# First ask four questions one after another, as a script would.

# %%
terms = """TTFT, KV cache, goodput, prefill, decode, batch size, throughput, latency, paged attention, tokenizer,
tensor parallelism, quantization, roofline, speculative decoding, prefix caching, open loop""".replace("\n", " ")
questions = [[{"role": "user", "content": f"What is {term.strip()}?"}] for term in terms.split(",")]

before = metrics.scrape(server)
for question in questions[:4]:
    await load.fire(server, [question], 96, model=model, temperature=0)
change = metrics.scrape(server) - before
alone = change["generation_tokens_total"] / change.time
print(f"one after another: {alone:.0f} tokens/s")

# %% [markdown]
# Now ask all sixteen at once, while a second connection keeps reading vLLM's counters. `ignore_eos` forces each answer
# to the length we ask for, from short to long, so the picture shows when each request leaves.

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
# Each row is one request, timed by the client; the lower half shows vLLM's counters. The dots of different requests
# line up, because one step of the engine produces one token for **every** running request. A finished request
# leaves the batch at once and makes room for the next. This is continuous batching (TensorRT-LLM calls it in-flight
# batching).
#
# ### Exercise: prove it from the counters
#
# Pictures persuade; counters prove. `iteration_tokens_total_count` counts the engine's steps. How many requests
# received a token in an average step?

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
# | flag | what it decides | what raising or setting it costs |
# |---|---|---|
# | `--max-num-seqs` | how many requests run together | memory for their KV; slower steps for all |
# | `--max-model-len` | longest prompt plus answer, in tokens | more KV memory that a single request may take |
# | `--max-num-batched-tokens` | tokens in one step, prompts included | longer steps: others wait for a long prompt |
# | `--gpu-memory-utilization` | share of the GPU's memory that vLLM takes | nothing is left for other programs |
# | `--dtype`, `--quantization`, `--kv-cache-dtype` | bytes per weight, per cached value | memory; fewer cost quality |
# | `--enforce-eager` | no compilation, no CUDA graphs | slower steps, but a faster start |
#
# Try one of them: start the same server with `--max-num-seqs 4`.
#
# ### Exercise: predict, then look
#
# Sixteen requests of equal length arrive together, and at most four run. In how many waves are they answered? How
# many wait when the queue is longest? Write both numbers **before** you run the next cells; the check comes after them.

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

# %%
measured_queue = max(sample["num_requests_waiting"] for sample in watch.samples)
check("01.waves", waves, longest_queue, len(questions), max_num_seqs, measured_queue)
server.stop()

# %% [markdown]
# The grey lines are users waiting. A limit protects the running requests and makes the others queue. So choosing the
# limit is a decision about users, not about software. Lesson 02 puts numbers on it.
#
# ## The cost
#
# Batching multiplies the tokens per second, but each stream gets slower: a step for sixteen requests takes longer than
# a step for a single one. A limit such as `--max-num-seqs` protects the requests that run, but makes the others wait.
#
# ## On an H100
#
# Run the same cells there with a model that needs the GPU: `model = "Qwen/Qwen2.5-7B-Instruct"`. The command becomes:

# %%
print(vllm.on_h100("Qwen/Qwen2.5-7B-Instruct", max_model_len=8192, max_num_seqs=256, gpu_memory_utilization=0.9))

# %% [markdown]
# This lesson's own code recorded what batching does on such a GPU, for a model with the shape of Llama 3.1 8B.

# %%
record.find("vllm-h200-8b-streams")

# %% [markdown]
# ## An open challenge
#
# Answer the sixteen questions faster, by flags alone. The judge starts one server with `--max-num-seqs 4` and one with
# your flags, sends the questions to both in turns, and compares tokens per second. The answers must stay the same.
# Start with the table above, then look through `vllm serve --help=all`. There is no single best answer: each time you
# reach the bar, it rises.

# %%
from labs.serve_with_vllm import challenge

### BEGIN SOLUTION
flags = {"max_num_seqs": 16}
### STARTER
# flags = {"max_num_seqs": 4}  # vLLM's flags, with underscores
### END SOLUTION
await challenge.judge(model, questions, flags)

# %% [markdown]
# ## Recap
#
# - One command starts a service. Its interface is OpenAI's; its metrics have Prometheus' format.
# - Time to first token and inter-token latency are different waits with different causes.
# - A server beats a script because it batches: one step serves every running request.
# - A limit does not remove waiting. It decides which requests wait.
#
# **Keep:** `vllm.serve`, the counters you know by name, and the picture of sixteen requests.
#
# Next: [02 · Measure](02_measure.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()
