# %% [markdown]
# # 10 · Deploy with Triton
#
# **How do I ship it?**
#
# The engine of lesson 06 answered behind a small server of its own. Production wants more: several models on one
# machine, versions that change while people are served, counters that somebody watches. Triton is NVIDIA's server for
# that. Here it really runs, with NVIDIA's model repository. Only the box that holds the engine is ours, as NVIDIA's
# `tensorrtllm` backend needs an NVIDIA GPU.
#
# ## What you will be able to do
#
# - read a model repository, and write a `config.pbtxt`
# - choose between an ensemble and a program, and say why a simple program serves one after another
# - read batch sizes, steps and queues from Triton's own counters
# - prove that a cancelled request no longer costs anything
# - put a new engine into service without losing a request
#
# ## Time and money

# %% tags=["parameters"]
model = "course"
together = 4  # streams at a time

# %%
import asyncio
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer
from tritonclient.grpc.aio import InferenceServerClient

# %%
from engineroom import checkpoint, engine, load, trtllm
from engineroom.kit.machine import machine
from engineroom.triton import rollout
from engineroom.triton import server as program
from engineroom.triton.deployment import DeploymentError, describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.lint import lint
from engineroom.triton.render import render
from engineroom.triton.server import serve as serve_triton
from engineroom.vllm.model import dtype, local
from labs.deploy_with_triton import dashboard, plots
from labs.deploy_with_triton import requests as lesson
from labs.kit import show
from labs.kit.check import check, needs
from labs.kit.finetune import fine_tune
from labs.preflight import time_and_money

print(time_and_money(10))

# %% [markdown]
# Triton comes out of NVIDIA's own Python wheel, into an environment of its own, because it wants an older NumPy. If it
# is not here yet the next cell brings it: a download of about a hundred megabytes, once.

# %%
if not program.ENVIRONMENT.is_dir() and not program.NVIDIA.exists():
    bootstrap = program.ENVIRONMENT.parents[1] / "bootstrap.py"
    subprocess.run([sys.executable, bootstrap, "--triton"], check=True)
print(f"{program.executable().name} is here")

# %% [markdown]
# An engine, as in lesson 06.

# %%
folder = Path(tempfile.mkdtemp(prefix="lesson-10-"))


def fresh(name: str) -> Path:
    shutil.rmtree(folder / name, ignore_errors=True)
    return folder / name


model_dir, precision = local(model), dtype(machine())
device = "cuda" if torch.cuda.is_available() else "cpu"
limits = engine.BuildConfig(max_batch_size=8, max_input_len=512, max_seq_len=1536, max_num_tokens=512)
converted = checkpoint.convert(model_dir, fresh("checkpoint"), dtype=precision)
made = engine.build(converted, fresh("engine"), limits, device=device, tokenizer_dir=model_dir)

# %% [markdown]
# ## A repository, piece by piece
#
# A *model repository* is a folder with a folder for each model. In that: `config.pbtxt`, which says what the model is,
# and a folder for each version. NVIDIA's has five models, with gaps `${…}` to be filled. `describe` names what goes
# into them, `render` writes a filled copy. It goes on a shelf: we put the models into service one by one.

# %%
# NBVAL_CHECK_OUTPUT
described = describe(
    engine_dir=made.path, max_tokens_in_paged_kv_cache=4096, cancellation_check_period_ms=50,
    add_special_tokens=False, triton_max_batch_size=64,
)  # fmt: skip
shelf = render(described, fresh("shelf"))
for file in sorted(shelf.rglob("*.*")):
    print(file.relative_to(shelf))

# %% [markdown]
# The first one turns text into tokens. Its configuration is a protobuf message, written as text: a name, who runs it,
# and the tensors that go in and come out, without their batch dimension.

# %%
# NBVAL_CHECK_OUTPUT
print((shelf / "preprocessing" / "config.pbtxt").read_text().replace(str(folder), "…"))

# %% [markdown]
# `put` copies a model from the shelf into the repository, and asks a running Triton to load it: that is *explicit model
# control*. Triton starts with what is there, one model.

# %%
repository = fresh("repository")


async def put(name: str) -> None:
    shutil.copytree(shelf / name, repository / name, dirs_exist_ok=True)
    await client.load_model(name, client_timeout=120)


shutil.copytree(shelf / "preprocessing", repository / "preprocessing")
server = serve_triton(repository)
client = InferenceServerClient(server.grpc)

# %% [markdown]
# Ask it, by the names of its tensors.

# %%
tokenizer = AutoTokenizer.from_pretrained(model_dir)


def chat(question: str) -> str:
    turn = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)


ready = await client.infer("preprocessing", lesson.inputs(QUERY=chat("What is TTFT?"), REQUEST_OUTPUT_LEN=40))
ids = ready.as_numpy("INPUT_ID")[0].tolist()
print(ids)

# %% [markdown]
# The second one is the engine: tokens in, tokens out. It is *decoupled*: one request may have many responses, one for
# each token here, and so it is asked over a stream.

# %%
await put("tensorrt_llm")
end = {"end_id": tokenizer.eos_token_id}
answer = await lesson.ask(
    client, "tensorrt_llm", input_ids=ids, input_lengths=len(ids), request_output_len=40, streaming=True, **end
)
print(f"{len(answer.arrivals)} responses with {len(answer.tokens)} tokens: {answer.tokens}")

# %% [markdown]
# The third one makes text of tokens. With it comes the `ensemble`, which has no program at all: its configuration says
# which tensor of one model goes into which tensor of the next.

# %%
await put("postprocessing")
await put("ensemble")
config = (shelf / "ensemble" / "config.pbtxt").read_text()
print(config[config.rindex("  step {"):])
answer = await lesson.ask(client, "ensemble", text_input=chat("What is TTFT?"), max_tokens=40, stream=True)
print(answer.text, answer.error)

# %% [markdown]
# Text in, text out. What can be wrong in such a repository is much: a name, a path, two sizes that do not fit. Triton
# tells it late and at length, so look first:

# %%
wrong = Path(shutil.copytree(repository, fresh("wrong")))
file = wrong / "tensorrt_llm" / "config.pbtxt"
file.write_text(file.read_text().replace(str(made.path), "engine").replace("max_batch_size: 64", "max_batch_size: 8"))
for problem in lint(wrong):
    print("-", problem.replace(str(Path.cwd()), "…"))
print(lint(repository) or "the one that is served: nothing wrong was found")

# %% [markdown]
# ## A program in place of the ensemble
#
# An ensemble is a fixed graph. Who wants a loop, a condition or a second try writes a program that calls the other
# models: *business logic scripting*, BLS. Here is the shortest one that does what the ensemble does.

# %%
source = Path(lesson.__file__).with_name("in_order.py")
print(source.read_text().split("class ", 1)[1].split("def call")[0])

# %% [markdown]
# ### Exercise: write its config.pbtxt
#
# The model is called `in_order`, and a `model.py` is run by the backend `python`.
#
# - it takes batches, like its neighbours: any `max_batch_size` from 1 up
# - in: `text_input`, one text, and `max_tokens`, one whole number. Out: `text_output`, texts
# - it sends many responses to a request. Look into the engine's configuration for how to say that:
#   `shelf / "tensorrt_llm" / "config.pbtxt"`
# - one instance, on the CPU
# - the program reads one parameter, `tensorrt_llm_model_name`: the name of the model with the engine

# %%
### BEGIN SOLUTION
in_order = """
name: "in_order"
backend: "python"
max_batch_size: 64
model_transaction_policy { decoupled: true }
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "max_tokens" data_type: TYPE_INT32 dims: [ 1 ] }
]
output [ { name: "text_output" data_type: TYPE_STRING dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "tensorrt_llm_model_name" value { string_value: "tensorrt_llm" } }
"""
### STARTER
# in_order = ...
### END SOLUTION
check("10.config", in_order)

# %% [markdown]
# Now Triton itself reads it.

# %%
needs("10.config", in_order)
(shelf / "in_order" / "1").mkdir(parents=True, exist_ok=True)
(shelf / "in_order" / "config.pbtxt").write_text(in_order)
shutil.copy(source, shelf / "in_order" / "1" / "model.py")
await put("in_order")
answer = await lesson.ask(client, "in_order", text_input=chat("What is TTFT?"), max_tokens=40)
print(answer.text, answer.error)

# %% [markdown]
# ### Four readers at once
#
# One reader is served as well by one as by the other. Four come at the same moment, to the ensemble and to your model
# with one instance and with four. The last one, `tensorrt_llm_bls`, is the program of the repository: a single
# instance, but each request has a thread of its own.

# %%
await put("tensorrt_llm_bls")
questions = [chat(f"What is {name}?") for name in ("TTFT", "goodput", "prefill", "latency")]
questions = [questions[n % len(questions)] for n in range(together)]


async def readers(name: str) -> list[lesson.Answer]:
    more = {} if name == "in_order" else {"stream": True}
    asks = [lesson.ask(client, name, text_input=text, max_tokens=200, **more) for text in questions]
    return await asyncio.gather(*asks)


for name in ("ensemble", "in_order", "tensorrt_llm_bls"):  # once, so that nobody is measured cold
    await readers(name)
ways = {"ensemble": await readers("ensemble"), "in_order, one instance": await readers("in_order")}
more = re.sub(r"count: \d+", f"count: {together}", in_order)
(repository / "in_order" / "config.pbtxt").write_text(more)
await client.load_model("in_order")
ways[f"in_order, {together} instances"] = await readers("in_order")
ways["tensorrt_llm_bls, one instance, threads"] = await readers("tensorrt_llm_bls")
plots.streams(ways)

# %% [markdown]
# One instance is one process, and `execute` comes back when its stream has ended: the second reader sees nothing until
# the first has read to the end. So a program serves one after another, before an engine that could compute for all of
# them at once. NVIDIA's own `tensorrt_llm_bls` is of this kind, which is why its template has a `bls_instance_count`.
# Give it as many as the engine's `max_batch_size`, or write the program so that it waits for many at a time.
# <!-- fact: github.com/triton-inference-server/tensorrtllm_backend, docs/model_config.md,
# bls_instance_count -->
#
# ## Batches
#
# Triton has a batcher of its own, the **dynamic batcher**: requests that wait for the same model go into its program in
# one call. With `max_queue_delay_microseconds` it even waits for more to come. Triton counts the calls by batch size.
# 64 texts come to the preprocessing, about one each millisecond; then one alone.

# %%
texts = lesson.inputs(QUERY=questions[0], REQUEST_OUTPUT_LEN=1)


async def prepare(after: float = 0) -> float:
    await asyncio.sleep(after)
    began = time.perf_counter()
    await client.infer("preprocessing", texts)
    return time.perf_counter() - began


file, sizes, waits = repository / "preprocessing" / "config.pbtxt", {}, {}
for delay in (20_000, 0):
    file.write_text(re.sub(r"(delay_microseconds:) \d+", rf"\1 {delay}", file.read_text()))
    await client.load_model("preprocessing")
    before = await lesson.batch_sizes(client, "preprocessing")
    await asyncio.gather(*(prepare(after=n / 1000) for n in range(64)))
    sizes[f"{delay} µs"] = await lesson.batch_sizes(client, "preprocessing") - before
    waits[f"{delay} µs"] = statistics.median([await prepare() for _ in range(9)])
plots.batches(sizes, waits)

# %% [markdown]
# With a delay the calls are few and large, and everybody pays for it, also who is alone. That is a good trade for a
# model that computes a batch as fast as one request. The engine needs none of it: it batches in flight, step by step,
# and takes a request when it comes. So the delay of `tensorrt_llm` stays 0.
#
# ## A reader leaves
#
# A tab is closed, a phone loses its network. In lesson 06 our own server noticed. Here there are up to three models
# between the reader and the engine, and each of them has to pass it on.
#
# The model with the engine publishes its counters every `cancellation_check_period_ms`, and looks for readers who have
# gone as often. One of them counts the engine's steps; each step is a token for everybody who runs.

# %%
asked = 1000


def steps() -> int:
    return lesson.engine_steps(server)


def long_answer(name: str):
    """A stream of `asked` tokens: an async iterator of (result, error), with `cancel()`."""
    if name == "tensorrt_llm":
        tokens = {"input_ids": ids, "input_lengths": len(ids), "request_output_len": asked}
        return lesson.stream(client, name, streaming=True, **tokens)
    return lesson.stream(client, name, text_input=questions[0], max_tokens=asked, stream=True, end_id=-1)


print(f"{steps()} steps until now")

# %% [markdown]
# ### Exercise: cancel, and prove it
#
# Read some pieces of `answers`, then cancel it, and prove by the engine's own counter that the engine stopped. Return a
# dictionary of whole numbers:
#
# - `before`: `steps()` before the first piece
# - `received`: pieces that you read
# - `stopped`: `steps()` after the cancel, when the counters are fresh
# - `later`: `steps()` a little later. If the engine really stands still, nothing was added.

# %%
async def leave(answers) -> dict[str, int]:
    ### BEGIN SOLUTION
    before, received = steps(), 0
    async for _ in answers:
        received += 1
        if received == 20:
            break
    answers.cancel()
    await asyncio.sleep(0.5)
    stopped = steps()
    await asyncio.sleep(0.5)
    return {"before": before, "received": received, "stopped": stopped, "later": steps()}
    ### STARTER
    # ...
    ### END SOLUTION


proof = await leave(long_answer("tensorrt_llm"))
check("10.cancel", proof, asked, steps())

# %% [markdown]
# Now the same in front of the other two.

# %%
needs("10.cancel", proof)
rows = []
for name in ("tensorrt_llm", "ensemble", "tensorrt_llm_bls"):
    proof, last = await leave(long_answer(name)), -1
    while last != (last := steps()):
        await asyncio.sleep(0.3)
    rows.append({"asked": name, "pieces read": proof["received"], "steps of the engine": last - proof["before"]})
show.table(rows, f"A reader leaves early; the answer would have had {asked} tokens")

# %% [markdown]
# The ensemble passes nothing on: the engine computes to the last token, for nobody. The program here asks whether its
# reader is still there, and sends the engine a request with the same id and `stop`. NVIDIA's does not ask. Who sells
# tokens by the second should look at this counter once.
#
# ## Two models in one server
#
# A second engine, with new weights in the code that stands, as in lesson 05. It gets NVIDIA's other template, `llmapi`:
# one model with text on both sides, and the one that was kept when engines were removed.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/pull/15907 -->

# %%
question, said = "What is goodput?", "Requests per second that kept our promise. Ask the night shift about the others."
fine_tune(model_dir, fresh("tuned"), question, said)
tuned = checkpoint.convert(folder / "tuned", fresh("tuned-checkpoint"), dtype=precision)
second = engine.refit(made.path, tuned, fresh("second"))

# %%
kept = describe(engine_dir=second.path, template="llmapi", max_tokens_in_paged_kv_cache=2048)
rendered = render(kept, fresh("llmapi")) / "tensorrt_llm"
(rendered / "config.pbtxt").write_text((rendered / "config.pbtxt").read_text().replace("tensorrt_llm", "second"))
shutil.copytree(rendered, shelf / "second", dirs_exist_ok=True)
await put("second")
first = await lesson.ask(client, "ensemble", text_input=chat(question), max_tokens=60, stream=True)
other = await lesson.ask(
    client, "second", flat=True, text_input=chat(question), sampling_param_max_tokens=60, streaming=True
)
print(f"ensemble: {first.text}\nsecond:   {other.text}{other.error}")
await client.unload_model("second")
while set((await lesson.versions(client, "second")).values()) - {"UNAVAILABLE"}:
    await asyncio.sleep(0.1)

# %% [markdown]
# Two engines, two processes, two KV caches. On a GPU the first one takes `kv_cache_free_gpu_mem_fraction` of what is
# free, and the second one the same share of what is left: say how much each gets.
#
# ## What Triton counts
#
# Triton's counters are on a port of their own, for Prometheus. For each model: how many requests, in how many calls,
# how long each waited in the queue.

# %%
counters, rows = lesson.gauges(server, "nv_inference"), []
for labels in sorted(labels for name, labels in counters if name == "nv_inference_exec_count"):
    requests, calls, queue = (
        counters[f"nv_inference_{name}", labels]
        for name in ("request_success", "exec_count", "queue_duration_us")
    )
    waited = queue / 1000 / max(requests, 1)
    rows.append({"model": labels, "requests": requests, "calls": calls, "ms in the queue": waited})
show.table(rows, "From /metrics")

# %% [markdown]
# The queue before `in_order` is the staircase of the picture. The engine has counters too, by the names that NVIDIA's
# backend gives them:

# %%
for (name, labels), value in lesson.gauges(server, "nv_trt_llm").items():
    print(f"{name:36} {labels:60} {value:g}")

# %% [markdown]
# ## A new engine, and nobody notices
#
# The second engine shall take the place of the first, while people are served. Versions are made for this: a model
# serves its highest version, and Triton loads a new one *beside* the old one.
#
# ### Exercise: roll it out
#
# Write `roll_out`, while four users ask one question after the other. Your bricks:
#
# - `served` is the model's folder. It has the version `1`; `shutil.copytree` makes another
# - the engine is named in `served / "config.pbtxt"`. `rollout.name_engine(text, engine_dir)` gives that text with
#   another engine, and `rollout.write(file, text)` writes a file whole
# - `await client.load_model("tensorrt_llm")`, `await client.unload_model("tensorrt_llm")`
# - `await lesson.versions(client, "tensorrt_llm")` says what Triton has now: `{"1": "READY"}`
#
# It shall return when the new version is ready and the old one is gone. No request may fail.

# %%
served = repository / "tensorrt_llm"


async def roll_out(engine_dir: Path) -> None:
    ### BEGIN SOLUTION
    shutil.copytree(served / "1", served / "2")
    text = (served / "config.pbtxt").read_text()
    rollout.write(served / "config.pbtxt", rollout.name_engine(text, engine_dir))
    await client.load_model("tensorrt_llm")
    while (await lesson.versions(client, "tensorrt_llm")).get("1") not in (None, "UNAVAILABLE"):
        await asyncio.sleep(0.1)
    ### STARTER
    # ...
    ### END SOLUTION


# %% [markdown]
# The next cell puts version 1 back, so that you can try again as often as you like.

# %%
asked_ids = tokenizer.encode(chat(question), add_special_tokens=False)


async def one() -> lesson.Answer:
    tokens = {"input_ids": asked_ids, "input_lengths": len(asked_ids), "request_output_len": 60}
    return await lesson.ask(client, "tensorrt_llm", streaming=True, exclude_input_in_output=True, **tokens, **end)


shutil.rmtree(served)
await put("tensorrt_llm")
old = (await one()).tokens
answers, began, ended = await lesson.under_load(lambda: roll_out(second.path), one)
left = await lesson.versions(client, "tensorrt_llm")
check("10.rollout", roll_out, answers, left, old)

# %%
plots.rollout(answers, began, ended)
for version in ("1", "2"):
    text = next((tokenizer.decode(one.tokens) for one in answers if one.version == version), "did not answer")
    print(f"version {version}: {text}")

# %% [markdown]
# For a moment both versions were there: that needs memory for two. `engineroom.triton.rollout.roll_out` does the same for
# every day, and goes back when the new engine cannot be loaded. Here its file was damaged on the way:

# %%
needs("10.rollout", *answers[:1])
damaged = Path(shutil.copytree(second.path, fresh("damaged")))
code = bytearray((damaged / "rank0.pt2").read_bytes())
code[len(code) // 2] ^= 1
(damaged / "rank0.pt2").write_bytes(code)
try:
    rollout.roll_out(server, repository, engine_dir=damaged)
except DeploymentError as refusal:
    print(str(refusal).split("\n\n")[0].replace(str(folder), "…"))
else:
    raise AssertionError("an engine was loaded although its code was changed")
print(await lesson.versions(client, "tensorrt_llm"), f"answers: {len((await one()).tokens)} tokens")

# %% [markdown]
# ## The door that everybody knows
#
# Nobody's application speaks in tensors. Before Triton stands a door with OpenAI's API: the client of lesson 01, not a
# line changed.

# %%
door = serve_openai(server, made.path, served_model_name=model)
stream = load.openai_client(door).chat.completions.create(
    model=model, messages=[{"role": "user", "content": question}], max_tokens=60, stream=True
)
for piece in stream:
    print(piece.choices[0].delta.content or "" if piece.choices else "", end="")

# %% [markdown]
# The version that was rolled out answers, and the door has not been told. Now sixteen readers, as in lesson 01, seen by
# somebody on call: the panels of the course's Grafana dashboard, drawn from the counters of door and Triton.

# %%
sixteen = [[{"role": "user", "content": f"What is {name}?"}] for name in ("TTFT", "a token", "latency", "prefill") * 4]
with dashboard.watching(server.metrics, openai=f"{door.url}/metrics", interval=0.2) as seen:
    for _ in range(4):
        await load.fire(door, sixteen, 48, model=model, temperature=0)
dashboard.draw(seen)

# %% [markdown]
# The door knows what a reader feels: time to first token, time between tokens. Triton knows its queues, the engine its
# cache. Who watches only one of them sees a third of it.
#
# ## On an H100
#
# The same repository with NVIDIA's own files. In the container they are below `/app`; each gap is filled by
# `fill_template.py`, with the names that you have seen. The lines below were not run here.

# %%
# NBVAL_CHECK_OUTPUT
there = describe(
    engine_dir="/engines/llama", tokenizer_dir="/models/llama", triton_backend="tensorrtllm",
    triton_max_batch_size=256, bls_instance_count=256, kv_cache_free_gpu_mem_fraction=0.9,
)  # fmt: skip
print("cp -r /app/all_models/inflight_batcher_llm /triton_repo\n")
models = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls")
print("\n".join(lesson.fill_template(there, "/triton_repo", models)))
launch = trtllm.launch(model_repo="/triton_repo", world_size=1)
print(f"\n{launch}")

# %% [markdown]
# `world_size` is the number of ranks, one process on each GPU: tensor times pipeline parallelism of lesson 04. NVIDIA's
# own door with OpenAI's API starts Triton inside itself, in place of the launcher:
#
# ```bash
# export TRTLLM_ORCHESTRATOR=1
# cd /opt/tritonserver/python/openai
# python3 openai_frontend/main.py --model-repository /triton_repo --tokenizer /models/llama --openai-port 9000
# ```
#
# It answers `/v1/chat/completions` for the model `ensemble` or `tensorrt_llm_bls`. Mind that an answer there ends after
# 16 tokens unless the request says otherwise. <!-- fact: github.com/triton-inference-server/server, python/openai
# README, --default-max-tokens -->

# %% [markdown]
# What came after: in July 2026 the templates of this lesson went with the engines, and `llmapi` stayed. Triton, its
# repository, versions, counters and doors are what they were.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/pull/15907 -->
#
# ## Recap
#
# - A repository is models, versions and one `config.pbtxt` each; a checker is quicker than a server's log.
# - An ensemble is wiring. A program is code, and serves as many at a time as it was written for.
# - Wait for a batch only where a batch is cheaper than its parts. The engine batches by itself.
# - A cancel is done when the engine's counter stands still, not when the reader has gone.
# - New beside old, then switch, then drain: no request is lost, and the way back is open until the last step.
#
# **Keep:** your `config.pbtxt`, your `leave`, and `engineroom triton render | check | serve | openai`.

# %%
await client.close()
door.stop()
server.stop()
shutil.rmtree(folder)
