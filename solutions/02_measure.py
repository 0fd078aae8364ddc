# %% [markdown]
# # 02 · Measure
#
# **Is it fast, and for whom?**
#
# "Fast" is not a number. A person in a chat feels the wait for the first word. A batch job needs many tokens per
# second. The person who pays the bill asks how many users one GPU can serve. This lesson gives each of them a number,
# starting from raw timestamps.
#
# ## What you will be able to do
#
# - compute TTFT, ITL, TPOT, end-to-end latency, throughput and goodput from timestamps
# - explain why closed-loop tests flatter a server, and what an open loop shows
# - find the highest request rate that still meets an objective
# - check a measurement with Little's law
#
# ## Time and money

# %% tags=["parameters"]
model = "course"
prompt_tokens = 64
answer_tokens = 32
seconds_per_rate = 8

# %%
import pandas

from engineroom import load, vllm
from engineroom.kit import record
from labs.kit.check import check
from labs.measure import plots
from labs.preflight import time_and_money

print(time_and_money(2))
server = vllm.serve(model)

# %% [markdown]
# ## Raw timestamps
#
# Everything below is computed from two facts: when a request was sent, and when each of its tokens arrived. The load is
# eight users, each of whom asks again as soon as the answer is complete. The first run only warms the server up. The
# times are seconds of a clock that started at some moment in the past, so only their differences mean anything.

# %%
prompts = load.random_prompts(64, prompt_tokens, seed=1)
more = {"model": model, "ignore_eos": True}
await load.closed_loop(server, prompts[:16], answer_tokens, users=8, **more)
closed = await load.closed_loop(server, prompts, answer_tokens, users=8, **more)

trace = closed[0]
print(f"sent {trace.sent:.3f}")
print("arrived", [round(at, 3) for at in trace.arrivals[:5]], "…")

# %% [markdown]
# ### Exercise: four latencies
#
# - **TTFT**, time to first token: from sending to the first token
# - **end to end**: from sending to the last token
# - **ITL**, inter-token latencies: the gap before each token but the first, a list
# - **TPOT**, time per output token after the first: one number, (end to end − TTFT) divided by the number of gaps

# %%
def latencies(trace: load.Trace) -> dict[str, object]:
    """From `trace.sent` and `trace.arrivals`, in seconds."""
    ### BEGIN SOLUTION
    ttft = trace.arrivals[0] - trace.sent
    e2e = trace.arrivals[-1] - trace.sent
    itl = [b - a for a, b in zip(trace.arrivals, trace.arrivals[1:], strict=False)]
    return {"ttft": ttft, "e2e": e2e, "itl": itl, "tpot": (e2e - ttft) / (len(trace.arrivals) - 1)}
    ### STARTER
    # return {"ttft": ..., "e2e": ..., "itl": ..., "tpot": ...}
    ### END SOLUTION


check("02.latency", latencies)

# %% [markdown]
# For one request, TPOT is the mean of its ITLs. It hides what ITL shows: a single stall in the middle of a sentence.
#
# ### Exercise: what the unlucky feel
#
# A mean hides the slowest requests. Compute the 99th percentile: the value that only one in a hundred exceeds.

# %%
def p99(values: list[float]) -> float:
    ### BEGIN SOLUTION
    return sorted(values)[round(0.99 * (len(values) - 1))]
    ### STARTER
    # ...  # sort first
    ### END SOLUTION


check("02.percentile", p99)

# %%
plots.latencies(closed)

# %% [markdown]
# The dotted lines are not 99th percentiles. One request in a hundred is slower than the p99, and there are only 64
# requests here. So the picture calls the greatest value what it is: the slowest. Before you believe a p99, ask how many
# requests it was taken from.
#
# ## Throughput and goodput
#
# **Throughput** is the number of output tokens per second over the whole run. It says nothing about how long anybody
# waited. **Goodput** counts only the requests that met a service level objective (SLO): here, a limit for TTFT and a
# limit for TPOT.
#
# ### Exercise: both, from traces
#
# `load.duration(traces)` returns the seconds from the first request sent to the last token received.

# %%
def throughput(traces: list[load.Trace]) -> float:
    """Output tokens per second."""
    ### BEGIN SOLUTION
    return sum(len(trace.arrivals) for trace in traces) / load.duration(traces)
    ### STARTER
    # ...
    ### END SOLUTION


def goodput(traces: list[load.Trace], slo: load.SLO) -> float:
    """Requests per second with TTFT within slo.ttft and TPOT within slo.tpot."""
    ### BEGIN SOLUTION
    rows = [latencies(trace) for trace in traces]
    good = sum(row["ttft"] <= slo.ttft and row["tpot"] <= slo.tpot for row in rows)
    return good / load.duration(traces)
    ### STARTER
    # ...
    ### END SOLUTION


check("02.goodput", throughput, goodput)

# %% [markdown]
# ## The field's own tool
#
# vLLM's developers measure with `vllm bench serve`. Send the same load to the same server with our client, with their
# tool, and with our client again. The two columns of our client differ only by what else happened on this machine. The
# column `vllm bench` should differ from them by about as much as they differ from each other.

# %%
size = {"random_input_len": prompt_tokens, "random_output_len": answer_tokens}
bench = vllm.bench_serve(server, model=model, **size, num_prompts=64, max_concurrency=8)
more_prompts = load.random_prompts(64, prompt_tokens, seed=2)
again = load.summary(await load.closed_loop(server, more_prompts, answer_tokens, users=8, **more))


def row(numbers: dict[str, float]) -> list[float]:
    return [numbers["tokens_per_s"], *(1000 * numbers[f"{name}_p50"] for name in ("ttft", "tpot", "e2e"))]


pandas.DataFrame(
    {
        "ours": row(load.summary(closed)),
        "vllm bench": [bench["output_throughput"], *(bench[f"p50_{name}_ms"] for name in ("ttft", "tpot", "e2el"))],
        "ours again": row(again),
    },
    index=["tokens/s", "TTFT p50, ms", "TPOT p50, ms", "end to end p50, ms"],
).round(1)

# %% [markdown]
# If the two columns of our client are far apart, your machine is too busy to compare anything: run the cell with eight
# users again, then this one. Where the tools still differ, ask what each of them counts. Both tools take their times in
# the client, so the times include the client's own work.
#
# ## Closed loop, open loop
#
# Eight users who wait for each answer can never overload a server: when it slows down, they send less. That is a
# **closed loop**. Real users act independently. They arrive at random (a Poisson process), and when the server slows
# down they keep coming. That is an **open loop**.
#
# First measure the server's capacity. Then send an open-loop load below it, and one above it.

# %%
capacity = await load.capacity(server, prompt_tokens, answer_tokens, model=model)
print(f"about {capacity:.1f} requests per second at most")

calm = await load.open_loop(server, prompts, answer_tokens, rate=0.6 * capacity, **more)
storm = await load.open_loop(server, prompts, answer_tokens, rate=1.6 * capacity, **more)

# %%
plots.loops({"closed loop, 8 users": closed, "open loop, calm": calm, "open loop, storm": storm})

# %% [markdown]
# One server, three stories. Above capacity, the queue grows for as long as requests arrive, and the wait grows
# with it: there is no steady state to measure. A closed-loop test never shows this.
#
# ## How much can it take?
#
# A sweep answers that: open-loop runs at rising rates, until the objective is missed. If even the first rate is too
# high, the sweep tries half of it. So that the lesson works on every machine, the objective is relative to the calm
# run, the one below capacity: at most five times its TTFT and at most three times its TPOT.

# %%
numbers = load.summary(calm)
slo = load.SLO(ttft=5 * numbers["ttft_p50"], tpot=3 * numbers["tpot_p50"])
load_of = {"tokens": prompt_tokens, "max_tokens": answer_tokens, "seconds": seconds_per_rate}
points = await load.sweep(server, slo, 0.4 * capacity, **load_of, model=model)

# %% [markdown]
# ### Exercise: the highest rate that meets the objective
#
# Each point has `.rate`, the requests per second offered, and `.share(slo)`, the share of requests that met the
# objective. Find the highest rate with a share of at least 0.9. If there is none, return 0.

# %%
def highest_rate(points: list[load.Point], slo: load.SLO) -> float:
    ### BEGIN SOLUTION
    return max((point.rate for point in points if point.share(slo) >= 0.9), default=0)
    ### STARTER
    # ...
    ### END SOLUTION


check("02.max_rate", highest_rate)

# %%
best = highest_rate(points, slo)
plots.sweep(points, slo, best)

# %% [markdown]
# On the left is the knee: TTFT stays flat up to some rate, and then it climbs. On the right is the share of users who
# are served well. The capacity to report is the orange line, not the highest throughput anybody ever saw.
#
# ## Does it add up?
#
# Little's law holds for any arrival process: mean requests in flight = completion rate × mean time in the system. Apply
# it to every benchmark you are shown. If the three numbers disagree, one of them is wrong.
#
# ### Exercise: Little's law on your own run

# %%
def in_flight(traces: list[load.Trace]) -> float:
    """Requests in flight on average, from rate and mean end-to-end latency."""
    ### BEGIN SOLUTION
    rate = len(traces) / load.duration(traces)
    mean = sum(load.e2e(trace) for trace in traces) / len(traces)
    return rate * mean
    ### STARTER
    # ...
    ### END SOLUTION


check("02.little", in_flight, calm)

# %%
plots.in_flight(calm, in_flight(calm))
server.stop()

# %% [markdown]
# ## The cost
#
# A measurement disturbs what it measures: on your machine, the load generator takes its share of the cores from the
# server. An objective makes two servers comparable, but it hides what it does not name: a stream can meet the limits
# for TTFT and TPOT, and still pause for a second in the middle of a sentence.
#
# ## On an H100
#
# Run the same cells with a model that needs the GPU, with longer prompts and answers, and with more users. NVIDIA's own
# load generator is AIPerf, the successor of GenAI-Perf. `python3 bootstrap.py --aiperf` installs it, and the command
# below measures the server that the last command of lesson 01 starts, on port 8000. Type both in the course's folder:
#
# ```
# .venv/aiperf/bin/aiperf profile --model Qwen/Qwen2.5-7B-Instruct --url http://127.0.0.1:8000 \
#   --endpoint-type chat --streaming --synthetic-input-tokens-mean 512 --output-tokens-mean 256 \
#   --request-rate 8 --request-count 400
# ```
#
# This lesson's own code recorded the latency of one stream and of many streams on such a GPU:

# %%
record.find("vllm-h200-8b-ttft")

# %%
record.find("vllm-h200-8b-tpot")

# %% [markdown]
# ## An open challenge
#
# Four users read long answers while other users send prompts of 1,500 tokens. Each long prompt stops all four streams
# for a moment. Shorten these pauses by vLLM's flags alone. The judge serves the same load with vLLM's defaults and with
# your flags, in turns, and compares the 99th percentile of ITL. There is no single best answer: each time you reach the
# bar, it rises.

# %%
from labs.measure import challenge

### BEGIN SOLUTION
flags = {"max_num_batched_tokens": 128}
### STARTER
# flags = {}  # vLLM's flags, with underscores; the table in lesson 01 says what each costs
### END SOLUTION
await challenge.judge(model, flags)

# %% [markdown]
# ## Recap
#
# - TTFT, ITL, TPOT and end-to-end latency come from the same timestamps and serve different people.
# - Report percentiles, not means; goodput, not throughput; open-loop results, not closed-loop ones.
# - Capacity is the highest rate that meets an objective. Without an objective there is no capacity.
# - Little's law exposes wrong benchmarks.
#
# **Keep:** your SLO, the highest rate that met it, and `load.sweep`.
#
# Next: [03 · KV cache and batching](03_kv_cache_and_batching.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()
