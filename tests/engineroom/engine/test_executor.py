"""The compiled engine generates the same tokens with any batching, chunking, preemption and block reuse."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import Checkpoint, ShardedModel, convert, open_checkpoint
from engineroom.engine.build import build
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import ContextChunk
from engineroom.engine.runtime.request import Request, RequestError
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import CapacitySchedulerPolicy, PolicyError
from tests.engineroom.engine.conftest import COURSE, LIMITS

PROMPTS = [[7 * n + i for i in range(length)] for n, length in enumerate((3, 20, 47, 90, 130, 16, 33))]
PARAMS = SamplingParams(max_tokens=24)
POLICIES: list[CapacitySchedulerPolicy] = ["guaranteed_no_evict", "max_utilization"]


def make_executor(
    engine: EngineDir,
    max_tokens: int = 2048,
    policy: CapacitySchedulerPolicy = "guaranteed_no_evict",
    reuse: bool = True,
    overlap: int = 0,
) -> Executor:
    """`max_tokens`: the size of the KV cache."""
    kv_cache_config = KvCacheConfig(max_tokens=max_tokens, enable_block_reuse=reuse)
    return Executor(engine, kv_cache_config, policy, overlap)


def new_requests(executor: Executor) -> list[Request]:
    """A waiting request for each of PROMPTS."""
    requests = [Request(list(prompt), PARAMS) for prompt in PROMPTS]
    for request in requests:
        executor.scheduler.add(request)
    return requests


def assert_all_blocks_are_free(executor: Executor) -> None:
    assert executor.block_manager.num_free_blocks == executor.block_manager.num_blocks


@pytest.fixture(scope="module")
def alone(engine: EngineDir) -> list[list[int]]:
    """The output of each prompt when it runs alone, without block reuse."""
    executor = make_executor(engine, reuse=False)
    return [executor.generate([prompt], PARAMS)[0] for prompt in PROMPTS]


def test_alone_equals_the_reference(alone: Sequence[list[int]], checkpoint: Checkpoint) -> None:
    """Prompts of 90 and 130 tokens are computed in chunks of max_num_tokens, 48."""
    reference = ShardedModel(checkpoint)
    assert [reference.greedy(prompt, 24) for prompt in PROMPTS[:5]] == alone[:5]


@pytest.fixture
def two_layers(tmp_path: Path) -> Path:
    """The course model's first two layers, which compile sooner."""
    folder = tmp_path / "two layers"
    shutil.copytree(COURSE, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    tensors = load_file(folder / "model.safetensors")
    first_layers = {name: tensor for name, tensor in tensors.items() if not re.search(r"layers\.[2-9]", name)}
    save_file(first_layers, folder / "model.safetensors")
    return folder


@pytest.mark.timeout(400)
def test_a_compiled_bfloat16_engine_is_close_to_the_reference(tmp_path: Path, two_layers: Path) -> None:
    """Each graph is within 3 % of the largest logit; rotary frequencies in bfloat16 would be off by half of it."""
    checkpoint = open_checkpoint(convert(two_layers, tmp_path / "checkpoint", dtype="bfloat16"))
    runner = make_executor(build(checkpoint.directory, tmp_path / "engine", LIMITS)).model_runner
    reference = ShardedModel(checkpoint)
    for prompt in PROMPTS:
        expected = reference.logits(prompt)[-1]  # [vocab_size]
        block_ids, position = list(range(1, 2 + len(prompt) // 16)), len(prompt) - 1
        context_logits, _ = runner.run_context([ContextChunk(prompt, 0, 0, block_ids)])
        generation_logits, _ = runner.run_generation(
            [prompt[-1]] * 2, [position] * 2, [0, 0], [block_ids] * 2
        )
        for logits in (context_logits[0], generation_logits[1]):
            assert (logits - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_tokens", [2048, 320, 160])
@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_together_equals_alone(
    engine: EngineDir,
    alone: list[list[int]],
    policy: CapacitySchedulerPolicy,
    max_tokens: int,
    overlap: int,
) -> None:
    """`overlap` 1 is how a GPU runs: the next step is launched before the tokens of the last one are read."""
    executor = make_executor(engine, max_tokens, policy, overlap=overlap)
    assert executor.generate(PROMPTS, PARAMS) == alone
    assert_all_blocks_are_free(executor)


@pytest.mark.parametrize("overlap", [0, 1])
def test_max_utilization_preempts_requests(engine: EngineDir, alone: list[list[int]], overlap: int) -> None:
    """Seven requests in 320 tokens of cache: max_utilization starts more than fit, and preempts some."""
    executor = make_executor(engine, 320, "max_utilization", overlap=overlap)
    requests = new_requests(executor)
    most_running = 0
    while executor.scheduler.has_requests:
        executor.step()
        most_running = max(most_running, len(executor.scheduler.running))
    assert sum(request.num_preemptions for request in requests) > 0 and most_running > 2
    assert [request.output_token_ids for request in requests] == alone


def test_guaranteed_no_evict_never_preempts(engine: EngineDir) -> None:
    executor = make_executor(engine, 320)
    requests = new_requests(executor)
    while executor.scheduler.has_requests:
        executor.step()
    assert all(request.num_preemptions == 0 for request in requests)


def test_a_reused_prefix_gives_the_same_tokens(engine: EngineDir, alone: list[list[int]]) -> None:
    executor = make_executor(engine)
    longer_prompt = [*PROMPTS[4], 1, 2, 3]
    expected = make_executor(engine, reuse=False).generate([longer_prompt], PARAMS)
    assert executor.generate([PROMPTS[4]], PARAMS) == [alone[4]]
    steps_before = executor.num_steps
    assert executor.generate([longer_prompt], PARAMS) == expected
    assert executor.block_manager.num_reused_tokens == 128
    assert executor.num_steps - steps_before == 24  # one chunk instead of three


def test_joining_and_leaving_at_any_step(engine: EngineDir, alone: list[list[int]]) -> None:
    executor = make_executor(engine)
    requests = [Request(list(prompt), PARAMS) for prompt in PROMPTS]
    for request in requests:
        executor.scheduler.add(request)
        executor.step()
        executor.step()
    while executor.scheduler.has_requests:
        executor.step()
    assert [request.output_token_ids for request in requests] == alone


@pytest.mark.parametrize("overlap", [0, 1])
def test_endings(engine: EngineDir, alone: list[list[int]], overlap: int) -> None:
    executor = make_executor(engine, overlap=overlap)
    first, second, third = alone[0][:3]
    by_end_id = SamplingParams(max_tokens=24, end_id=first)
    assert executor.generate([PROMPTS[0]], by_end_id) == [[first]]
    by_stop_words = SamplingParams(max_tokens=24, stop_words=((second, third),))
    [output] = executor.generate([PROMPTS[0]], by_stop_words)
    assert output == alone[0][: len(output)] and output[-2:] == [second, third]
    assert len(executor.generate([PROMPTS[0]], SamplingParams(max_tokens=5))[0]) == 5


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "message"),
    [
        ([], 5, "prompt is empty"),
        ([1] * 193, 5, "prompt has 193 tokens, max_input_len is 192"),
        ([1] * 190, 70, "may reach 260 tokens, max_seq_len is 256"),
        ([1] * 100, 70, "may reach 170 tokens, the KV cache holds 160"),
    ],
)
def test_limits_are_named(engine: EngineDir, prompt: list[int], max_tokens: int, message: str) -> None:
    executor = make_executor(engine, 160)
    with pytest.raises(RequestError, match=message):
        executor.generate([[1, 2], prompt], SamplingParams(max_tokens=max_tokens))
    assert not executor.scheduler.waiting
    assert_all_blocks_are_free(executor)


def test_an_unknown_policy_is_named(engine: EngineDir) -> None:
    with pytest.raises(PolicyError, match="policy 'fair': expected guaranteed_no_evict or max_utilization"):
        make_executor(engine, policy="fair")


class Arrival(NamedTuple):
    step: int
    prompt_len: int
    max_tokens: int
    cancelled_after: int  # steps; 0 for never


ARRIVALS = st.builds(Arrival, st.integers(0, 12), st.integers(1, 60), st.integers(1, 12), st.integers(0, 8))


@settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    trace=st.lists(ARRIVALS, min_size=1, max_size=12),
    policy=st.sampled_from(POLICIES),
    overlap=st.integers(0, 1),
)
def test_any_trace_leaves_nothing(
    engine: EngineDir, trace: list[Arrival], policy: CapacitySchedulerPolicy, overlap: int
) -> None:
    """Every request ends once, or was cancelled; then every block is free."""
    executor = make_executor(engine, 144, policy, overlap=overlap)
    requests = [
        Request([3] * arrival.prompt_len, SamplingParams(max_tokens=arrival.max_tokens)) for arrival in trace
    ]
    finish_reasons: dict[Request, list[str]] = {request: [] for request in requests}
    for step in range(2000):
        for arrival, request in zip(trace, requests, strict=True):
            if step == arrival.step:
                executor.scheduler.add(request)
            if arrival.cancelled_after and step == arrival.step + arrival.cancelled_after:
                request.cancelled = True
        for request, output in executor.step():
            if output.finish_reason:
                finish_reasons[request].append(output.finish_reason)
        if step > 24 and not executor.scheduler.has_requests:
            break
    for request, reasons in finish_reasons.items():
        assert len(reasons) == 1 or (request.cancelled and not reasons)
    assert_all_blocks_are_free(executor)


async def stream(executor: AsyncExecutor, prompt: list[int]) -> list[int]:
    return [output.token_id async for output in executor.generate(prompt, PARAMS)]


async def first_token(executor: AsyncExecutor, prompt: list[int]) -> int:
    """Leave the stream after its first token."""
    async with aclosing(executor.generate(prompt, PARAMS)) as outputs:
        return (await anext(outputs)).token_id


def test_streams_and_cancellation(engine: EngineDir, alone: list[list[int]]) -> None:
    executor = AsyncExecutor(make_executor(engine))

    async def all_streams() -> list[list[int] | int]:
        streams = [stream(executor, prompt) for prompt in PROMPTS]
        first_tokens = [first_token(executor, prompt) for prompt in PROMPTS]
        return await asyncio.gather(*streams, *first_tokens)

    answers = asyncio.run(asyncio.wait_for(all_streams(), 60))
    assert answers == [*alone, *(answer[0] for answer in alone)]
    executor.close()
    executor.executor.step()
    assert_all_blocks_are_free(executor.executor)


def test_a_failed_step_raises_in_every_stream_and_the_engine_goes_on(
    engine: EngineDir, alone: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = AsyncExecutor(make_executor(engine))
    with monkeypatch.context() as patch:
        patch.setattr(executor.executor.model_runner, "run_generation", None)
        with pytest.raises(TypeError):
            asyncio.run(asyncio.wait_for(stream(executor, PROMPTS[0]), 60))
    assert asyncio.run(asyncio.wait_for(stream(executor, PROMPTS[0]), 60)) == alone[0]
    assert_all_blocks_are_free(executor.executor)
    executor.close()
