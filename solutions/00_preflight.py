# %% [markdown]
# # 00 · Preflight
#
# **What have I got, and what will it cost?**
#
# Before you serve a model, look at the machine, at the size of the model, and at the price per hour.
# A quarter of an hour here saves an evening of error messages later.
#
# New to JupyterLab or to this course? Take the tour: **Help > Engine Room tour**.
#
# ## What you will be able to do
#
# - read a machine card and say which engines can run here
# - compute whether a model's weights fit into memory
# - set a budget for a rented GPU and keep to it
#
# ## Time and money

# %% tags=["parameters"]
model = "course"  # the model of this repository; any Hugging Face id works on a machine with room for it
budget_dollars = 10

# %%
import sys

from engineroom.kit import process
from engineroom.kit.machine import machine
from labs.kit import show
from labs.kit.bill import bill, price_per_hour
from labs.kit.check import check
from labs.preflight import Answerer, Meter, draw_memory, problems, time_and_money

print(time_and_money(0))

# %% [markdown]
# ## What have I got?
#
# `machine()` inspects what this notebook may use: processor, memory, disk, GPUs, and the version of every serving
# engine. A missing GPU is not an error: the course runs without one.

# %%
here = machine()
here

# %% [markdown]
# The next cell lists what would hurt later, each point with its remedy. If it prints nothing, all is well.

# %%
for problem in problems(here):
    print("•", problem)

# %% [markdown]
# This course uses three engines. A lesson runs every engine that your machine really has. For an engine that your
# machine lacks, the lesson shows the command to type where it is installed.
#
# | engine | what it is | needs |
# |---|---|---|
# | `vllm` | the flexible default of the field | a CPU or a GPU |
# | `aot` | ours: compiled ahead of time by PyTorch; its code is read in an evening | a CPU or a GPU, a C++ compiler |
# | `trtllm` | TensorRT-LLM 1.2.1, the last stable release that builds engines | an NVIDIA GPU and NVIDIA's container |
#
# ### Exercise: read the card
#
# How many cores may this notebook use? Which engine would you start with here?

# %%
### BEGIN SOLUTION
cores = here.cores
engine = here.engines[0]
### STARTER
# cores = ...  # a number, from the card above
# engine = ...  # one name from the card, in quotes
### END SOLUTION
check("00.card", cores, engine)

# %% [markdown]
# ## Does a model fit?
#
# Start with the weights: a model stores one number for each parameter. A number takes four bytes in `float32`, two in
# `bfloat16`, one in an 8-bit format and half a byte in a 4-bit format. Datasheets count gigabytes of $10^9$ bytes.
#
# ### Exercise: the size of the weights

# %%
def weight_gb(parameters: float, bytes_per_parameter: float) -> float:
    """Gigabytes (1e9 bytes) that the weights of a model take."""
    ### BEGIN SOLUTION
    return parameters * bytes_per_parameter / 1e9
    ### STARTER
    # ...  # replace this line
    ### END SOLUTION


check("00.weights", weight_gb)

# %% [markdown]
# Now your own function decides what fits. Each bar is a model; each dashed line is the memory of a machine: yours, and
# the two GPUs of the course.

# %%
answerer = Answerer(model)
weights = {
    "course model, bf16": weight_gb(answerer.parameters, 2),
    "8B, bf16": weight_gb(8.03e9, 2),
    "8B, 4 bit": weight_gb(8.03e9, 0.5),
    "70B, bf16": weight_gb(70.6e9, 2),
}
# H100 SXM 80 GB, H200 141 GB: NVIDIA's datasheets
memory = {"this machine": here.memory_available_gib * 2**30 / 1e9, "H100": 80, "H200": 141}
draw_memory(weights, memory)

# %% [markdown]
# A model fits if its bar ends to the left of the line. The gap is what is left for the KV cache: the keys and values
# that attention stores for every token of every conversation. That gap decides how many users you can serve. Lesson 03
# is about it.
#
# ## A first answer
#
# The model of this course was trained on the [glossary](../docs/glossary.md), on small sums, on copying and on looking
# things up. It fits on any laptop, and yet its answers make sense. Here it runs inside this notebook's process, through
# Hugging Face `transformers`. The answers are correct, but this is not a service: nobody else can ask.

# %%
print(answerer.ask("What is time to first token?"))

# %%
print(answerer.ask("What is 17 + 25?"))

# %% [markdown]
# ## A server, and nothing left behind
#
# In this course one function starts every server. It picks a free port that only this machine can reach, waits until
# the server answers, and keeps a log. When the kernel ends, restarts or is killed, the server ends too. Try it with a
# very small server: Python's own.

# %%
server = process.start([sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"], name="hello", ready="/")
server

# %%
server.stop()
print("servers running now:", process.running())

# %% [markdown]
# ## What will it cost?
#
# Without a GPU, nothing. A rented GPU costs money from the minute it starts until you give it back, even while it
# computes nothing. The table uses the median of the list prices in `records/published/gpu-prices.json`; each price has
# its date there. To use your provider's price, set the environment variable `ENGINEROOM_PRICE_PER_HOUR` before you
# start JupyterLab.

# %%
show.table(bill(), "Minutes to work through each lesson, and dollars on a rented H100")

# %% [markdown]
# ### Exercise: set a budget
#
# You want to spend `budget_dollars`. How many **minutes** of one H100 does that buy at the reference price,
# `price_per_hour("H100")`?

# %%
### BEGIN SOLUTION
minutes = budget_dollars / price_per_hour("H100") * 60
### STARTER
# minutes = ...  # from budget_dollars and price_per_hour("H100")
### END SOLUTION
check("00.budget", minutes, budget_dollars)

# %% [markdown]
# On a machine with a GPU, the meter below counts dollars and warns when four fifths of the budget are spent. Where you
# pay nothing, the meter is off.

# %%
meter = Meter(budget_dollars)
meter

# %% [markdown]
# ## The cost
#
# A format with fewer bytes per parameter lets a larger model fit, but it rounds every weight, and some answers get
# worse. A rented GPU shortens every wait, but it costs money from the first minute, even while it computes nothing.
#
# ## On an H100
#
# The same cells run there. The card then shows the GPU, its driver and its compute capability; in NVIDIA's container,
# `trtllm` joins the engines; and the meter runs. `deploy/README.md` explains how to rent a GPU and how to give it back.
#
# ## Where you are
#
# Your progress stays on this machine and survives restarts and updates of the course. Each lesson ends with a map of
# the course that shows your progress. In a terminal, `engineroom progress map` prints the same map. JupyterLab's
# terminals know the course's commands; in any other terminal, first run `source .venv/bin/activate` in the course's
# folder.

# %%
print(f"spent: ${meter.stop():.2f}")

# %% [markdown]
# ## An open challenge
#
# You pay for the tokens of the prompt and for those of the answer. Write `build_request` so that a question about any
# term of the glossary costs fewer tokens. It returns arguments for `answerer.complete`: `question`, `system` and
# `max_new_tokens`. The judge asks about terms that it does not show you. An answer is good when it contains the first
# sentence of the term's definition. There is no single best answer: each time you reach the bar, it rises.

# %%
from labs.preflight import challenge


def build_request(term: str) -> dict:
    """The arguments of `answerer.complete` for a question about `term`."""
    ### BEGIN SOLUTION
    return {"question": term, "system": "Be brief."}
    ### STARTER
    # return {"question": f"What is {term}?"}  # shorten it
    ### END SOLUTION


await challenge.judge(answerer, build_request)

# %% [markdown]
# ## Recap
#
# - Read the machine card first. A version or memory mismatch is cheaper to read than to debug.
# - Weights take parameters times bytes per parameter. The memory that remains holds the users' KV cache.
# - A model in a process is not a service. The next lesson turns it into one.
#
# **Keep:** the machine card and the budget.
#
# Next: [01 · Serve with vLLM](01_serve_with_vllm.ipynb)

# %%
from labs.kit.course_map import show_map

show_map()
