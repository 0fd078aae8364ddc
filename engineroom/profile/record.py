"""Record a trace of our engine and of vLLM while each serves the same workload."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import torch

from engineroom.compare.workload import BatchWorkload
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.span import spans
from engineroom.kit.errors import UserError
from engineroom.kit.files import require_writable
from engineroom.kit.network import http_client
from engineroom.kit.process import Server
from engineroom.kit.record import command_line
from engineroom.load.drive import closed_loop, random_prompts
from engineroom.load.shape import SHAPES
from engineroom.load.stats import summary
from engineroom.profile.reduce import add_provenance, provenance
from engineroom.profile.trace import TraceError
from engineroom.vllm.measure import COURSE_VOCABULARY, serve

ENGINE_TRACE, VLLM_TRACE = "engine.trace.json.gz", "vllm.trace.json.gz"
SCOPES = {"VLLM_CUSTOM_SCOPES_FOR_PROFILING": "1"}  # ranges around vLLM's steps and their parts
STOP_TIMEOUT = 600  # seconds: vLLM writes the trace before it answers
QUIET = "99"  # of KINETO_LOG_LEVEL; at any other level Kineto reports each start and stop on stderr


class ProfileError(UserError, RuntimeError):
    """A recording that failed."""


def profile_engine(
    engine_dir: str | Path, workload: BatchWorkload, steps: int, out: str | Path, *, skip: int = 0
) -> Path:
    """Serve `workload` with an engine in this process, and record `steps` steps of it after the first `skip`.

    The whole workload runs once before, without the profiler. All requests arrive together, so the first steps compute
    their context. Returns the trace, ENGINE_TRACE in the folder `out`, with the ranges `step`, `schedule`, `context`,
    `generation`, `sample` and `read`. Raises EngineError, RequestError for a workload beyond the engine's limits,
    TraceError when the workload has no more than `skip` steps, and FolderError.
    """
    folder = require_writable(Path(out))
    executor = Executor(engine_dir, KvCacheConfig(max_tokens=workload.kv_cache_tokens))
    prompts = random_prompts(workload.streams, workload.input_len, vocab=_vocabulary(executor))
    params = SamplingParams(max_tokens=workload.output_len)
    executor.generate(prompts, params)
    for prompt in random_prompts(workload.streams, workload.input_len, seed=1, vocab=_vocabulary(executor)):
        executor.scheduler.add(Request(prompt, params))
    for _ in range(skip):
        executor.step()
    command = command_line("profile engine", engine_dir, workload=workload, steps=steps, skip=skip, out=out)
    origin = provenance(command, device=executor.model_runner.device, engine="aot")
    with tempfile.TemporaryDirectory() as temporary:
        trace = _record_steps(executor, steps, Path(temporary) / "trace.json.gz")
        return add_provenance(trace, folder / ENGINE_TRACE, origin)


def _vocabulary(executor: Executor) -> range:
    """Random token ids without the special ones, which are the first or the last in most vocabularies."""
    size = executor.engine.model.vocab_size
    return range(min(300, size // 2), min(4000, size))


def _record_steps(executor: Executor, steps: int, path: Path) -> Path:
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if executor.model_runner.device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities), torch.profiler.record_function("warm-up"):
        pass  # the first range of a process takes milliseconds
    with torch.profiler.profile(activities=activities) as profiler, spans(torch.profiler.record_function):
        for _ in range(steps):
            if executor.scheduler.has_requests:
                executor.step()
        if executor.model_runner.device == "cuda":
            torch.cuda.synchronize()
    executor.abort_all()
    profiler.export_chrome_trace(str(path))
    return path


def profile_vllm(
    model: str, workload: BatchWorkload, steps: int, out: str | Path, *, skip: int = 0, **flags: object
) -> Path:
    """Start vLLM, send it `workload` twice, and record `steps` steps of the second time, after the first `skip`.

    `model` is what `vllm.serve` takes, or a shape in SHAPES, which gets random weights; `flags` are vLLM's. The trace
    is of vLLM's worker process, which runs the model: VLLM_TRACE in the folder `out`, with a range `execute_...` for
    each step and `gpu_model_runner: ...` for its parts (on a CPU too). The scheduler runs in another process. Raises
    ServerFailed, ProfileError when vLLM refuses or writes no trace, TraceError for an empty one, and FolderError.
    """
    folder = require_writable(Path(out))
    command = command_line("profile vllm", model, workload=workload, steps=steps, skip=skip, out=out)
    with tempfile.TemporaryDirectory() as temporary:
        traces = Path(temporary) / "traces"
        settings = profiler_config(traces, steps, skip)
        flags = {"max_num_seqs": workload.streams, "profiler_config": settings} | flags
        with serve(model, Path(temporary), env=SCOPES, **flags) as server:
            _send(server, model, workload, seed=0)
            _post(server, "start_profile")
            _send(server, model, workload, seed=1)
            _post(server, "stop_profile")
        origin = provenance(command, engine="vllm")
        return add_provenance(_worker_trace(traces), folder / VLLM_TRACE, origin)


def profiler_config(folder: Path, steps: int, skip: int = 0) -> str:
    """The value of vLLM's `--profiler-config`: the worker's trace, in `folder`, of `steps` steps after `skip`.

    Without Python's stacks, which make a step several times as slow, and without the process of the HTTP server. Fields
    are those of vllm.config.ProfilerConfig in vLLM 0.32.
    """
    return json.dumps(
        {
            "profiler": "torch",
            "torch_profiler_dir": str(folder),
            "torch_profiler_with_stack": False,
            "ignore_frontend": True,
            "delay_iterations": skip,
            "max_iterations": steps,
        }
    )


def _send(server: Server, model: str, workload: BatchWorkload, seed: int) -> None:
    vocabulary = SHAPES[model]["vocab_size"] if model in SHAPES else COURSE_VOCABULARY
    prompts = random_prompts(workload.streams, workload.input_len, seed, range(300, vocabulary))
    answers = closed_loop(
        server, prompts, workload.output_len, workload.streams, model="model", ignore_eos=True, temperature=0
    )
    with ThreadPoolExecutor(1) as thread:  # a notebook's thread has an event loop already
        traces = thread.submit(asyncio.run, answers).result()
    if summary(traces)["failed"]:
        error = next((trace.error for trace in traces if trace.error), "the answer was empty")
        raise ProfileError(
            f"vLLM did not answer all requests of the workload {workload}. The first error: {error}"
        )


def _post(server: Server, endpoint: str) -> None:
    with http_client(server.url, timeout=STOP_TIMEOUT) as client:
        try:
            client.post(f"/{endpoint}").raise_for_status()
        except httpx.HTTPError as error:
            raise ProfileError(f"vLLM refused /{endpoint}: {error}. See its log: {server.log}.") from error


def _worker_trace(folder: Path) -> Path:
    """The trace of rank 0: other ranks of a tensor-parallel server do the same work."""
    traces = sorted(folder.glob("*.json.gz"))
    if not traces:
        raise TraceError(f"vLLM wrote no trace to {folder}. Was its workload shorter than the steps to skip?")
    return next((path for path in traces if "rank0" in path.name), traces[0])
