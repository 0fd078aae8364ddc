"""A small server on the real engine, all on one thread, with named ranges: what a profiler sees of it."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import ModelRunner
from engineroom.engine.runtime.request import Request, TokenOutput
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.span import span, spans
from engineroom.openai.text import Vocabulary
from engineroom.profile.record import QUIET
from engineroom.profile.trace import Trace, read_trace
from labs.profile.counting import Touched
from labs.profile.planted import LARGEST_PER_CALL, HostFunctions
from labs.profile.spans import Span, calls, self_times


@dataclass(frozen=True)
class Profile:
    """One profiled run: the spans of its trace, its answers as token ids and as texts, and counted quantities.

    `counts`: what each function of the server touched in all its calls, in the units of planted.UNITS.
    """

    spans: list[Span]
    prompts: list[list[int]]
    answers: list[list[int]]
    texts: list[str]
    counts: dict[str, int]

    @property
    def calls(self) -> Counter[str]:
        return calls(self.spans)

    def share(self, name: str) -> float:
        """The self time of the spans of this name, as a share of all self times; 0 for a name without spans."""
        times = self_times(self.spans)
        return times.get(name, 0.0) / sum(times.values())

    def touches_too_much(self, name: str) -> bool:
        """Whether the function of this name touched more than a healthy one does in as many calls."""
        return self.counts[name] > LARGEST_PER_CALL[name] * self.calls[name]


class _HostRunner(ModelRunner):
    """The engine's model runner, which brings the KV cache into order before each step and names what it does."""

    use_cuda_graphs = False  # the cache may move between steps
    server: Server

    def _launch(self, graph: str, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        self.k_caches = [self.server.lay_out(cache) for cache in self.k_caches]
        self.v_caches = [self.server.lay_out(cache) for cache in self.v_caches]
        with span("forward"):
            return super()._launch(graph, *inputs)


class _HostExecutor(Executor):
    """The engine's loop, in which the server chooses each token from its row of logits."""

    model_runner_class = _HostRunner
    server: Server

    def _sample(
        self, requests: list[Request], logits: Tensor, greedy_token_ids: Tensor
    ) -> list[tuple[Request, TokenOutput]]:
        chosen = [self.server.choose(row) for row in logits]
        token_ids = torch.tensor(chosen, device=logits.device)
        self._set_last_tokens(requests, token_ids)
        return super()._sample(requests, logits, token_ids)


class Server:
    """Serves prompts with `functions`. With `counted` it counts what they touch; otherwise it only calls them."""

    def __init__(self, engine: EngineDir, kv_tokens: int | None = None) -> None:
        """`kv_tokens`: the size of the KV cache in tokens, as in KvCacheConfig. Raises EngineError."""
        self.functions = HostFunctions()
        self.counts: Counter[str] = Counter()
        self.counted = False
        self._executor = _HostExecutor(engine, KvCacheConfig(kv_tokens, enable_block_reuse=False), overlap=0)
        self._executor.server = self
        runner = self._executor.model_runner
        assert isinstance(runner, _HostRunner)
        runner.server = self
        self._vocabulary = Vocabulary(engine.path / "tokenizer")

    def serve(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, functions: HostFunctions
    ) -> tuple[list[list[int]], list[str]]:
        """The answers of `max_tokens` tokens, as token ids and as texts. Raises what `functions` raise."""
        self.functions = functions
        requests = [Request(list(prompt), SamplingParams(max_tokens=max_tokens)) for prompt in prompts]
        texts = {request: "" for request in requests}
        num_sent = dict.fromkeys(requests, 0)
        for request in requests:
            self._executor.scheduler.check(request)
            self._executor.scheduler.add(request)
        try:
            while self._executor.scheduler.has_requests:
                for request, _ in self._executor.step():
                    delta = self.text_after(request.output_token_ids, num_sent[request])
                    texts[request] += delta
                    num_sent[request] = len(request.output_token_ids) if delta else num_sent[request]
        finally:
            self._executor.abort_all()
        return [request.output_token_ids for request in requests], list(texts.values())

    def choose(self, logits: Tensor) -> int:
        return int(self._call("choose_token", self.functions.choose_token, logits))

    def lay_out(self, cache: Tensor) -> Tensor:
        laid_out: Tensor = self._call("cache_layout", self.functions.cache_layout, cache)
        return laid_out

    def text_after(self, token_ids: Sequence[int], num_sent: int) -> str:
        return str(self._call("detokenize", self.functions.detokenize, token_ids, num_sent, self._decode))

    def _decode(self, token_ids: Sequence[int]) -> str:
        self.counts["detokenize"] += len(token_ids) if self.counted else 0
        return self._vocabulary.decode(token_ids)

    def _call(self, name: str, function: Callable[..., Any], *arguments: object) -> Any:
        with span(name):
            if not self.counted:
                return function(*arguments)
            with Touched() as touched:
                output = function(*arguments)
        if name == "choose_token":
            self.counts[name] += touched.values_read
        elif name == "cache_layout":
            self.counts[name] += touched.values_written
        return output


def serve_profiled(
    server: Server, prompts: Sequence[Sequence[int]], max_tokens: int, functions: HostFunctions
) -> tuple[profile, list[list[int]], list[str]]:
    """Serve the prompts under PyTorch's profiler: its recording, the answers as token ids, and as texts."""
    os.environ.setdefault("KINETO_LOG_LEVEL", QUIET)
    with profile(activities=[ProfilerActivity.CPU]) as profiler, spans(record_function):
        answers, texts = server.serve(prompts, max_tokens, functions)
    return profiler, answers, texts


def profile_serving(
    server: Server, prompts: Sequence[Sequence[int]], max_tokens: int, functions: HostFunctions
) -> Profile:
    """Serve the prompts twice: once under PyTorch's profiler, then without it to count what the functions touch.

    Raises what `functions` raise.
    """
    serve_profiled(server, prompts[:1], 1, functions)  # the first range of a process takes milliseconds
    profiler, answers, texts = serve_profiled(server, prompts, max_tokens, functions)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        profiler.export_chrome_trace(str(path))
        trace = read_trace(path)
    server.counts, server.counted = Counter(), True
    try:
        server.serve(prompts, max_tokens, functions)
    finally:
        server.counted = False
    return Profile(
        spans=host_spans(trace),
        prompts=[list(prompt) for prompt in prompts],
        answers=answers,
        texts=texts,
        counts={name: server.counts[name] for name in LARGEST_PER_CALL},
    )


def host_spans(trace: Trace) -> list[Span]:
    """The named ranges of a trace's host threads, in microseconds from the first one's begin."""
    ranges = [event for event in trace.events if event.category == "range"]
    origin = min((event.begin_ns for event in ranges), default=0)
    threads = {thread: index for index, thread in enumerate(dict.fromkeys(event.thread for event in ranges))}
    return [
        Span(
            event.name,
            (event.begin_ns - origin) / 1000,
            (event.end_ns - origin) / 1000,
            threads[event.thread],
        )
        for event in ranges
    ]
