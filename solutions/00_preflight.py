# %% [markdown]
# # 00 · Preflight
#
# **What have I got, and what will it cost?**
#
# Before you serve a model you look at the machine, at the size of the model, and at the price of the hour.
# Ten minutes here save an evening of error messages later.
#
# ## What you will be able to do
#
# - read a machine card and say which engines can run here
# - compute whether a model's weights fit into a memory
# - set a budget for a rented GPU, and keep to it
#
# ## Time and money

# %% tags=["parameters"]
model = "course"  # the model of this repository; any Hugging Face id works on a machine with room for it
budget_dollars = 10

# %%
import sys

from engineroom.kit import process
from engineroom.kit.machine import machine
from labs.kit import progress, show
from labs.kit.bill import bill, price_per_hour
from labs.kit.check import check
from labs.preflight import Answerer, Meter, draw_memory, problems, time_and_money

print(time_and_money(0))

# %% [markdown]
# ## What have I got?
#
# `machine()` looks at what this notebook may use: processor, memory, disk, GPUs, and the version of every serving
# engine. A missing GPU is a finding, not an error: the course runs without one.

# %%
here = machine()
here

# %% [markdown]
# Anything that would hurt later is said now, each with its remedy. No line means: all is well.

# %%
for problem in problems(here):
    print("•", problem)

# %% [markdown]
# Three engines appear in this course. A lab runs on every engine that your machine really has; for one that it
# lacks, it shows the command for a machine that has it.
#
# | engine | what it is | needs |
# |---|---|---|
# | `vllm` | the flexible default of the field | a CPU or a GPU |
# | `aot` | ours: compiled by PyTorch, small enough to read in an evening | a CPU or a GPU, a C++ compiler |
# | `trtllm` | TensorRT-LLM 1.2.1, the last stable release that builds engines | an NVIDIA GPU and NVIDIA's container |
#
# ### Exercise: read the card
#
# How many cores may this notebook use? And which engine would you start with here?

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
# The weights come first: one number for each parameter. `bfloat16` takes two bytes for each, `float32` four, 8-bit
# formats one, 4-bit formats half of one. Datasheets count gigabytes of $10^9$ bytes.
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
# Now your own function decides what fits. The lines are memories: this machine's, and the two GPUs of the course.

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
# A bar that ends left of a line fits, with what is left over for the KV cache: the memory of the conversations
# themselves. Lesson 03 is about that rest, because it decides how many users you can serve.
#
# ## A first answer
#
# The model of this course has been trained on the [glossary](../docs/glossary.md), on small sums, on copying and on
# looking things up. It fits into any laptop, and its answers mean something. Here it runs in this very process, by
# Hugging Face `transformers`: correct, and no service at all. Nobody else can ask it anything.

# %%
print(answerer.ask("What is time to first token?"))

# %%
print(answerer.ask("What is 17 + 25?"))

# %% [markdown]
# ## A server, and nothing left behind
#
# Servers are started by one function in this course. It picks a free port on this machine only, waits until the
# server answers, and keeps a log. When the kernel dies, restarts or is killed, the server goes with it. The smallest
# server there is shows it: Python's own.

# %%
server = process.start([sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"], name="hello", ready="/")
server

# %%
server.stop()
print("servers running now:", process.running())

# %% [markdown]
# ## What will it cost?
#
# Without a GPU: nothing. On a rented one the meter runs from the minute it starts until you give it back, not only
# while you compute. The prices are a dated reference list; set `ENGINEROOM_PRICE_PER_HOUR` to your provider's.

# %%
show.table(bill(), "Minutes to work through each lesson, and dollars on a rented H100")

# %% [markdown]
# ### Exercise: set a budget
#
# You are ready to spend `budget_dollars`. How many **minutes** of one H100 does that buy at the reference price,
# `price_per_hour("H100")`?

# %%
### BEGIN SOLUTION
minutes = budget_dollars / price_per_hour("H100") * 60
### STARTER
# minutes = ...  # from budget_dollars and price_per_hour("H100")
### END SOLUTION
check("00.budget", minutes, budget_dollars)

# %% [markdown]
# The meter below counts on a machine with a GPU, warns at four fifths of the budget, and is off where nothing is paid.

# %%
meter = Meter(budget_dollars)
meter

# %% [markdown]
# ## On an H100
#
# The same cells run there. The card then shows the GPU, its driver and its compute capability, `trtllm` joins the
# engines in NVIDIA's container, and the meter runs. `deploy/` says how to rent one and how to give it back.
#
# ## What you have done so far
#
# Your progress is kept on this machine, across restarts and updates of the course.

# %%
from IPython.display import HTML

meter.stop()
HTML(progress.report())

# %% [markdown]
# ## Recap
#
# - A machine card comes first. Version and memory mismatches are cheaper to read than to debug.
# - Weights in gigabytes are parameters times bytes per parameter. What remains of the memory serves the users.
# - A model in a process is not a service. The next lesson makes it one.
#
# **Keep:** the machine card and the budget.
#
# Next: [01 · Serve with vLLM](01_serve_with_vllm.ipynb)
