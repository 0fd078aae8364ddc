# %% [markdown]
# # 10 · Deploy with Triton
#
# **How do I ship it?**
#
# The engine of lesson 06 answered behind a small server of its own. Production wants more: several models on one
# machine, versions that change while users are served, and counters that somebody watches. Triton is NVIDIA's server
# for this. It really runs here, with NVIDIA's model repository. Only the model with the engine is ours, because
# NVIDIA's `tensorrtllm` backend needs an NVIDIA GPU.
#
# ## What you will be able to do
#
# - read a model repository and write a `config.pbtxt`
# - choose between an ensemble and a BLS program, and explain why a simple BLS program serves one request after another
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
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer
from tritonclient.grpc.aio import InferenceServerClient

# %%
from engineroom import checkpoint, engine, load, trtllm
from engineroom.kit import process
from engineroom.kit.files import write_atomic
from engineroom.kit.machine import machine
from engineroom.metrics.history import record_metrics
from engineroom.triton import rollout
from engineroom.triton import server as program
from engineroom.triton.deployment import DeploymentError, describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.lint import lint
from engineroom.triton.render import render
from engineroom.triton.server import serve as serve_triton
from engineroom.vllm.model import dtype, local_folder
from labs.deploy_with_triton import attempts, dashboard, plots
from labs.deploy_with_triton import requests as lesson
from labs.kit import show
from labs.kit.check import check, needs
from labs.kit.finetune import fine_tune
from labs.kit.scratch import scratch_folder
from labs.preflight import time_and_money

print(time_and_money(10))

# %% [markdown]
# Triton comes from NVIDIA's own Python wheel. It has an environment of its own, because it needs an older NumPy. If
# that environment is missing, the next cell installs it once: a download of about a hundred megabytes.

# %%
if not program.ENVIRONMENT.is_dir() and not program.NVIDIA.exists():
    bootstrap = program.ENVIRONMENT.parents[1] / "bootstrap.py"
    subprocess.run([sys.executable, bootstrap, "--triton"], check=True)
print(f"{program.executable().name} is here")

# %% [markdown]
# Build an engine as in lesson 06.

# %%
scratch = scratch_folder("lesson-10")
folder, fresh = scratch.path, scratch.fresh
model_dir, precision = local_folder(model), dtype(machine())
device = "cuda" if torch.cuda.is_available() else "cpu"
limits = engine.BuildConfig(max_batch_size=8, max_input_len=512, max_seq_len=1536, max_num_tokens=512)
converted = checkpoint.convert(model_dir, fresh("checkpoint"), dtype=precision)
engine_dir = engine.build(converted, fresh("engine"), limits, device=device, tokenizer_dir=model_dir)

# %% [markdown]
# ## A repository, piece by piece
#
# A *model repository* is a folder with one folder per model. A model's folder holds `config.pbtxt`, which describes the
# model, and one folder per version. NVIDIA's repository has five models with placeholders `${…}`. `describe` sets their
# values; `render` writes the filled files. They go into a separate folder first, the *shelf*: we will put the models
# into service one by one.

# %%
# NBVAL_CHECK_OUTPUT
described = describe(
    engine_dir=engine_dir.path, max_tokens_in_paged_kv_cache=4096, cancellation_check_period_ms=50,
    add_special_tokens=False, triton_max_batch_size=64,
)  # fmt: skip
shelf = render(described, fresh("shelf"))
for file in sorted(shelf.rglob("*.*")):
    print(file.relative_to(shelf))

# %% [markdown]
# The first model turns text into tokens. Its configuration is a protobuf message in text form: a name, the backend that
# runs it, and its input and output tensors, without their batch dimension.

# %%
# NBVAL_CHECK_OUTPUT
print((shelf / "preprocessing" / "config.pbtxt").read_text().replace(str(folder), "…"))

# %% [markdown]
# `put` copies a model from the shelf into the repository and asks the running Triton to load it. Triton calls this
# *explicit model control*. When Triton starts, it loads what the repository holds then: one model.

# %%
repository = fresh("repository")


async def put(name: str) -> None:
    shutil.copytree(shelf / name, repository / name, dirs_exist_ok=True)
    await client.load_model(name, client_timeout=120)


shutil.copytree(shelf / "preprocessing", repository / "preprocessing")
server = serve_triton(repository)
client = InferenceServerClient(server.grpc)

# %% [markdown]
# Send the model a request: its input tensors, by name.

# %%
tokenizer = AutoTokenizer.from_pretrained(model_dir)


def chat(question: str) -> str:
    turn = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)


ready = await client.infer("preprocessing", lesson.infer_inputs(QUERY=chat("What is TTFT?"), REQUEST_OUTPUT_LEN=40))
ids = ready.as_numpy("INPUT_ID")[0].tolist()
print(ids)

# %% [markdown]
# The second model is the engine: tokens in, tokens out. It is *decoupled*: one request may get many responses, here one
# per token, or one for several tokens when the machine is busy. Therefore you send it requests over a stream.

# %%
await put("tensorrt_llm")
end = {"end_id": tokenizer.eos_token_id}
answer = await lesson.infer(
    client, "tensorrt_llm", input_ids=ids, input_lengths=len(ids), request_output_len=40, streaming=True, **end
)
print(f"{len(answer.arrival_times)} responses with {len(answer.token_ids)} tokens: {answer.token_ids}")

# %% [markdown]
# The third model turns tokens into text. Add it together with the fourth, the `ensemble`. An ensemble has no program:
# its configuration says which output tensor of one model feeds which input tensor of the next.

# %%
await put("postprocessing")
await put("ensemble")
config = (shelf / "ensemble" / "config.pbtxt").read_text()
print(config[config.rindex("  step {"):])
answer = await lesson.infer(client, "ensemble", text_input=chat("What is TTFT?"), max_tokens=40, stream=True)
print(answer.text, answer.error)

# %% [markdown]
# Text in, text out. A model repository can be wrong in many ways: a name, a path, two sizes that do not match. Triton
# reports such faults late and at length, so check first:

# %%
wrong = Path(shutil.copytree(repository, fresh("wrong")))
file = wrong / "tensorrt_llm" / "config.pbtxt"
text = file.read_text().replace(str(engine_dir.path), "engine")
file.write_text(text.replace("max_batch_size: 64", "max_batch_size: 8"))
for problem in lint(wrong):
    print("-", problem.replace(str(Path.cwd()), "…"))
print(lint(repository) or "the one that is served: nothing wrong was found")

# %% [markdown]
# ## A program in place of the ensemble
#
# An ensemble is a fixed graph. For a loop, a condition or a retry, you write a program that calls the other models:
# *business logic scripting*, BLS. Here is the shortest program that does what the ensemble does.

# %%
source = Path(lesson.__file__).with_name("in_order.py")
print(source.read_text().split("class ", 1)[1].split("def call")[0])

# %% [markdown]
# ### Exercise: write its config.pbtxt
#
# The model's name is `in_order`; the backend `python` runs its `model.py`.
#
# Replace each `...`:
#
# - it takes batches, like the other models: any `max_batch_size` from 1 up
# - inputs: `text_input`, one string, and `max_tokens`, one 32-bit integer. Output: `text_output`, strings
# - it sends many responses per request. The engine's configuration shows how to declare that:
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
# in_order = """
# name: "in_order"
# backend: ...
# max_batch_size: ...
# model_transaction_policy { ... }
# input [
#   { name: "text_input" data_type: ... dims: [ 1 ] },
#   { ... }
# ]
# output [ { name: "text_output" data_type: ... dims: [ -1 ] } ]
# instance_group [ { ... } ]
# parameters { key: ... value { string_value: ... } }
# """
### END SOLUTION
config_result = check("10.config", in_order)

# %% [markdown]
# Now let Triton itself read your configuration.

# %%
needs("10.config", config_result or None)
(shelf / "in_order" / "1").mkdir(parents=True, exist_ok=True)
(shelf / "in_order" / "config.pbtxt").write_text(in_order)
shutil.copy(source, shelf / "in_order" / "1" / "model.py")
await put("in_order")
answer = await lesson.infer(client, "in_order", text_input=chat("What is TTFT?"), max_tokens=40)
print(answer.text, answer.error)

# %% [markdown]
# ### Four readers at once
#
# For a single reader, ensemble and program are equally good. Now four readers arrive at the same moment: at the
# ensemble, and at your model with one instance and with four. The last model, `tensorrt_llm_bls`, is the program of
# this repository. It has a single instance too, but serves each request in a thread of its own.

# %%
await put("tensorrt_llm_bls")
questions = [chat(f"What is {name}?") for name in ("TTFT", "goodput", "prefill", "latency")]
questions = [questions[n % len(questions)] for n in range(together)]


async def readers(name: str) -> list[lesson.TritonResponse]:
    flags = {} if name == "in_order" else {"stream": True}
    asks = [lesson.infer(client, name, text_input=text, max_tokens=200, **flags) for text in questions]
    return await asyncio.gather(*asks)


# %%
needs("10.config", config_result or None)
for name in ("ensemble", "in_order", "tensorrt_llm_bls"):  # once, so that nobody is measured cold
    await readers(name)
streams = {"ensemble": await readers("ensemble")}
for instances in (1, together):
    (repository / "in_order" / "config.pbtxt").write_text(lesson.with_instances(in_order, instances))
    await client.load_model("in_order", client_timeout=120)
    running = await lesson.num_instances(client, "in_order")
    streams[f"in_order, instances: {running}"] = await readers("in_order")
streams["tensorrt_llm_bls, one instance with threads"] = await readers("tensorrt_llm_bls")
plots.streams(streams)

# %% [markdown]
# One instance is one process, and `execute` returns only when its stream has ended: the second reader sees nothing
# until the first answer is complete. So the program serves one request after another, in front of an engine that could
# compute all of them at once. NVIDIA's own `tensorrt_llm_bls` is of this kind, which is why its template has a
# `bls_instance_count`. Set it to the engine's `max_batch_size`, or write the program so that it handles many requests
# at a time.
# <!-- fact: github.com/triton-inference-server/tensorrtllm_backend, docs/model_config.md,
# bls_instance_count -->
#
# ## Batches
#
# Triton has a batcher of its own, the **dynamic batcher**: it passes requests that wait for the same model to the
# program in one call. With `max_queue_delay_microseconds` it even waits for more requests to arrive. Triton counts the
# calls by batch size. Send 64 texts to the preprocessing, about one per millisecond; then send single ones.

# %%
texts = lesson.infer_inputs(QUERY=questions[0], REQUEST_OUTPUT_LEN=1)


async def prepare(after: float = 0) -> float:
    """Send one text after that many seconds; returns the seconds until its tokens are here."""
    await asyncio.sleep(after)
    began = time.perf_counter()
    await client.infer("preprocessing", texts, client_timeout=60)
    return time.perf_counter() - began


async def set_delay(microseconds: int) -> None:
    file = repository / "preprocessing" / "config.pbtxt"
    file.write_text(re.sub(r"(delay_microseconds:) \d+", rf"\1 {microseconds}", file.read_text()))
    await client.load_model("preprocessing", client_timeout=120)


# %%
sizes, waits = {}, {}
for delay in (20_000, 0):
    await set_delay(delay)
    before = await lesson.batch_sizes(client, "preprocessing")
    await asyncio.gather(*(prepare(after=n / 1000) for n in range(64)))
    sizes[f"{delay} µs"] = await lesson.new_batch_sizes(client, "preprocessing", before, num_requests=64)
    waits[f"{delay} µs"] = statistics.median([await prepare() for _ in range(9)])
plots.batches(sizes, waits)

# %% [markdown]
# With a delay, the calls are few and large. Every request pays for the delay, even one that runs alone. That is a good
# trade for a model that computes a batch as fast as a single request. The engine does not need it: it batches in
# flight, step by step, and admits a request when it arrives. So the delay of `tensorrt_llm` stays 0.
#
# ## A reader leaves
#
# A tab is closed; a phone loses its network. In lesson 06 our own server noticed. Here up to three models stand between
# the reader and the engine, and each model has to pass the cancellation on.
#
# Every `cancellation_check_period_ms` milliseconds, the model with the engine looks for cancelled requests and
# publishes its counters. One counter counts the engine's steps; each step produces one token for every running request.

# %%
asked = 1000


def steps() -> int:
    return lesson.engine_steps(server)


def long_answer(name: str):
    """A stream of `asked` tokens: an async iterator of (result, error), with `cancel()`."""
    if name == "tensorrt_llm":
        tokens = {"input_ids": ids, "input_lengths": len(ids), "request_output_len": asked}
        return lesson.stream_infer(client, name, streaming=True, **tokens)
    return lesson.stream_infer(client, name, text_input=questions[0], max_tokens=asked, stream=True, end_id=-1)


print(f"{steps()} steps until now")

# %% [markdown]
# ### Exercise: cancel, and prove it
#
# Read some responses from the stream `answers`, then cancel the stream, and prove with the engine's own counter that
# the engine stopped. The counter is published only once in each of these periods, so wait before you read it. Return a
# dictionary of whole numbers:
#
# - `before`: `steps()` before the first response
# - `received`: the number of responses that you read
# - `stopped`: `steps()` after the cancel, once the counters are fresh
# - `later`: `steps()` a little later. If the engine really stopped, it equals `stopped`.

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


departure = await attempts.try_leave(leave, lambda: long_answer("tensorrt_llm"), server)
leave_result = check("10.cancel", leave, departure, asked)

# %% [markdown]
# `try_leave` runs your function and then cancels the request if it still runs, so you can try as often as you like.
# Now do the same with the other two models in front.

# %%
needs("10.cancel", leave_result or None)
rows = []
for name in ("tensorrt_llm", "ensemble", "tensorrt_llm_bls"):
    before = steps()
    departure = await attempts.try_leave(leave, lambda name=name: long_answer(name), server)
    read, computed = departure.num_responses, departure.steps_at_rest - before
    rows.append({"asked": name, "responses read": read, "steps of the engine": computed})
show.table(rows, f"A reader leaves early; the answer would have had {asked} tokens")

# %% [markdown]
# The ensemble does not pass the cancellation on: the engine computes to the last token, for nobody. This repository's
# BLS program checks whether its client is still there; if not, it sends the engine a request with the same id and with
# `stop` set. NVIDIA's program does not check. If you bill by GPU second, look at this counter once.
#
# ## Two models in one server
#
# Refit a second engine with new weights, as in lesson 05. The second engine gets NVIDIA's other template, `llmapi`: one
# model with text on both sides. NVIDIA kept this template when it removed engines. When `llmapi` streams, each response
# has the whole text so far, where the ensemble sends what is new; here it answers once.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/pull/15907 -->

# %%
question = "What is goodput?"
new_answer = "Requests per second that kept our promise. Ask the night shift about the others."
fine_tune(model_dir, fresh("tuned"), question, new_answer)
tuned = checkpoint.convert(folder / "tuned", fresh("tuned-checkpoint"), dtype=precision)
second = engine.refit(engine_dir.path, tuned, fresh("second"))

# %%
second_model = describe(engine_dir=second.path, template="llmapi", max_tokens_in_paged_kv_cache=2048)
rendered = render(second_model, fresh("llmapi")) / "tensorrt_llm"
(rendered / "config.pbtxt").write_text((rendered / "config.pbtxt").read_text().replace("tensorrt_llm", "second"))
shutil.copytree(rendered, shelf / "second", dirs_exist_ok=True)
await put("second")

# %%
first_answer = await lesson.infer(client, "ensemble", text_input=chat(question), max_tokens=60, stream=True)
second_answer = await lesson.infer(
    client, "second", flat=True, text_input=chat(question), sampling_param_max_tokens=60
)
print(f"ensemble: {first_answer.text}\nsecond:   {second_answer.text}{second_answer.error}")

# %% [markdown]
# Two answers to one question, from two engines in one server. The second engine is not needed any more: unload it.

# %%
await lesson.unload(client, "second")
print(await lesson.model_versions(client, "second"))

# %% [markdown]
# Two engines mean two processes and two KV caches. On a GPU, the first takes `kv_cache_free_gpu_mem_fraction` of the
# free memory, and the second takes the same share of the rest. So set how much each of them gets.
#
# ## What Triton counts
#
# Triton publishes its counters on a port of their own, for Prometheus. For each model they say how many requests it
# served, in how many calls, and how long requests waited in its queue.

# %%
counters, rows = lesson.read_metrics(server, "nv_inference"), []
for labels in sorted(labels for name, labels in counters if name == "nv_inference_exec_count"):
    requests, calls, queue = (
        counters[f"nv_inference_{name}", labels]
        for name in ("request_success", "exec_count", "queue_duration_us")
    )
    waited = queue / 1000 / max(requests, 1)
    rows.append({"model": labels, "requests": requests, "calls": calls, "ms in the queue": waited})
show.table(rows, "From /metrics")

# %% [markdown]
# The queue of `in_order` is the staircase in the picture of the four readers. The engine has counters too, under the
# names that NVIDIA's backend uses:

# %%
for (name, labels), value in lesson.read_metrics(server, "nv_trt_llm").items():
    print(f"{name:36} {labels:60} {value:g}")

# %% [markdown]
# ## A new engine, and nobody notices
#
# The second engine is to replace the first while users are being served. This is what versions are for: a model
# serves its highest version, and Triton loads the new version *beside* the old one.
#
# ### Exercise: roll it out
#
# Write `roll_out`. It runs while four users ask one question after another. You need:
#
# - `served` is the model's folder. It has the version `1`; `shutil.copytree` makes another
# - `served / "config.pbtxt"` names the engine. `rollout.replace_engine(text, engine_dir)` returns that text with
#   another engine in it, and `write_atomic(file, text)` replaces a file atomically
# - `await client.load_model("tensorrt_llm")`, `await client.unload_model("tensorrt_llm")`
# - `await lesson.model_versions(client, "tensorrt_llm")` returns the state of each version: `{"1": "READY"}`. A version
#   that was unloaded stays in the dictionary, as `UNAVAILABLE`
#
# `roll_out` must return once the new version is ready and the old one is unloaded. No request may fail.

# %%
served = repository / "tensorrt_llm"


async def roll_out(engine_dir: Path) -> None:
    ### BEGIN SOLUTION
    shutil.copytree(served / "1", served / "2")
    text = (served / "config.pbtxt").read_text()
    write_atomic(served / "config.pbtxt", rollout.replace_engine(text, engine_dir))
    await client.load_model("tensorrt_llm", client_timeout=120)
    while (await lesson.model_versions(client, "tensorrt_llm")).get("1") not in (None, "UNAVAILABLE"):
        await asyncio.sleep(0.1)
    ### STARTER
    # ...
    ### END SOLUTION


# %%
asked_ids = tokenizer.encode(chat(question), add_special_tokens=False)


async def ask_once() -> lesson.TritonResponse:
    tokens = {"input_ids": asked_ids, "input_lengths": len(asked_ids), "request_output_len": 60}
    return await lesson.infer(client, "tensorrt_llm", streaming=True, exclude_input_in_output=True, **tokens, **end)


# %% [markdown]
# The next cell restores version 1, then runs your `roll_out` under load, for two minutes at most. You can run it as
# often as you like.

# %%
shutil.rmtree(served, ignore_errors=True)
await put("tensorrt_llm")
old = (await ask_once()).token_ids
attempt = await attempts.try_roll_out(roll_out, second.path, server, served, ask_once)
roll_out_result = check("10.rollout", roll_out, attempt, str(second.path), old)

# %%
plots.rollout(attempt.responses, attempt.start_time, attempt.end_time)
for version in ("1", "2"):
    token_ids = next((response.token_ids for response in attempt.responses if response.version == version), None)
    text = tokenizer.decode(token_ids, skip_special_tokens=True) if token_ids else "did not answer"
    print(f"version {version}: {text}")

# %% [markdown]
# For a moment both versions were loaded, which needs memory for two. For daily use there is
# `engineroom.triton.rollout.roll_out`. It does the same, and goes back to the old version when the new engine cannot be
# loaded. Here the new engine's file is damaged:

# %%
needs("10.rollout", roll_out_result or None)
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
print(await lesson.model_versions(client, "tensorrt_llm"), f"answers: {len((await ask_once()).token_ids)} tokens")

# %% [markdown]
# ## Another evening: OpenAI's API in front of Triton
#
# Ten minutes more than the lesson's time. Nothing after this section needs it.
#
# Applications do not speak in tensors. So put a frontend with OpenAI's API in front of Triton. The client of lesson 01
# works unchanged.

# %%
door = serve_openai(server, engine_dir.path, served_model_name=model)
stream = load.openai_client(door).chat.completions.create(
    model=model, messages=[{"role": "user", "content": question}], max_tokens=60, stream=True
)
for piece in stream:
    print(piece.choices[0].delta.content or "" if piece.choices else "", end="")

# %% [markdown]
# The new version answers, and the frontend needed no change. Now send sixteen questions, as in lesson 01, and look at
# them as an engineer on call would: through the panels of the course's Grafana dashboard, drawn from the counters of
# frontend and Triton.

# %%
sixteen = [[{"role": "user", "content": f"What is {name}?"}] for name in ("TTFT", "a token", "latency", "prefill") * 4]
with record_metrics(server.metrics, openai=f"{door.url}/metrics", interval=0.2) as history:
    for _ in range(4):
        await load.fire(door, sixteen, 48, model=model, temperature=0)
dashboard.draw(history)

# %% [markdown]
# The frontend knows what a user feels: time to first token, time between tokens. Triton knows its queues; the engine
# knows its cache. If you watch only one of them, you see a third of the service.
#
# ## The cost
#
# Triton brings versions, roll-outs and counters, but every request now passes through three models, and its tokens
# through two protocols before a reader sees them. While two versions are loaded, there are two copies of the weights in
# memory, and each version has a KV cache of its own.
#
# ## On an H100
#
# Use the same repository with NVIDIA's own files. In NVIDIA's container they are under `/app`. `fill_template.py` fills
# the placeholders, with the names that you have seen. The commands below were not run here.

# %%
# NBVAL_CHECK_OUTPUT
h100 = describe(
    engine_dir="/engines/llama", tokenizer_dir="/models/llama", triton_backend="tensorrtllm",
    triton_max_batch_size=256, bls_instance_count=256, kv_cache_free_gpu_mem_fraction=0.9,
)  # fmt: skip
print("cp -r /app/all_models/inflight_batcher_llm /triton_repo\n")
models = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls")
print("\n".join(lesson.fill_template_commands(h100, "/triton_repo", models)))
launch = trtllm.launch(model_repo="/triton_repo", world_size=1)
print(f"\n{launch}")

# %% [markdown]
# `world_size` is the number of ranks, one process per GPU: the tensor parallelism of lesson 04 times the pipeline
# parallelism (which gives whole layers to each GPU). NVIDIA's own OpenAI frontend starts Triton inside itself, in place
# of the launcher:
#
# ```bash
# export TRTLLM_ORCHESTRATOR=1
# cd /opt/tritonserver/python/openai
# python3 openai_frontend/main.py --model-repository /triton_repo --tokenizer /models/llama --openai-port 9000
# ```
#
# It answers `/v1/chat/completions` for the model `ensemble` or `tensorrt_llm_bls`. Note that an answer ends after
# 16 tokens unless the request sets `max_tokens`. <!-- fact: github.com/triton-inference-server/server, python/openai
# README, --default-max-tokens -->

# %% [markdown]
# What came after: in July 2026 this lesson's templates were removed together with the engines; `llmapi` stayed.
# Triton, its repositories, versions, counters and frontends work as before.
# <!-- fact: github.com/NVIDIA/TensorRT-LLM/pull/15907 -->
#
# ## An open challenge
#
# Twelve readers come at once, through your own program. With a single instance, the engine serves one reader after
# another. Get the same texts in fewer steps of the engine. The short way is more instances, but each one is a process,
# so you may have two at most. The long way is a better program: the cell puts a copy of `in_order.py` beside this
# notebook, as `readers.py`. Edit it there and run the cell again. There is no single best answer: each time you reach
# the bar, it rises.

# %%
from labs.deploy_with_triton import challenge

needs("10.config", config_result or None)
if not Path("readers.py").exists():
    shutil.copy(source, "readers.py")
### BEGIN SOLUTION
num_instances = 2
### STARTER
# num_instances = 1
### END SOLUTION
readers_config = lesson.with_instances(in_order, num_instances).replace('"in_order"', '"readers"')
(shelf / "readers" / "1").mkdir(parents=True, exist_ok=True)
(shelf / "readers" / "config.pbtxt").write_text(readers_config)
shutil.copy("readers.py", shelf / "readers" / "1" / "model.py")
await put("readers")
await challenge.judge(server, client, "readers", questions * 3)

# %% [markdown]
# ## Recap
#
# - A repository holds models, their versions, and one `config.pbtxt` per model. A checker finds a fault faster than a
#   server's log.
# - An ensemble is wiring. A BLS program is code, and serves as many requests at a time as it was written for.
# - Wait for a batch only where one call with a batch is cheaper than many calls with single requests. The engine
#   batches by itself.
# - A request is cancelled when the engine's counter stops, not when the client has gone.
# - Load the new version beside the old one, switch, then drain: no request is lost, and you can go back until the last
#   step.
#
# **Keep:** your `config.pbtxt`, your `leave`, and `engineroom triton render`, `engineroom triton check`,
# `engineroom triton serve`, `engineroom triton openai`.

# %%
from labs.kit.course_map import show_map

show_map()

# %%
await client.close()
process.stop_all()
scratch.remove()
