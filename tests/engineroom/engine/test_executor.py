"""The compiled engine at work: the same tokens however requests are batched, cut, paused or helped by the cache."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import Checkpoint, Forward, convert, open_checkpoint
from engineroom.engine.build import build
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.async_executor import AsyncExecutor
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import Chunk
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.engine.runtime.scheduler import Policy, Request, RequestError
from tests.engineroom.engine.conftest import COURSE, LIMITS

PROMPTS = [[7 * n + i for i in range(length)] for n, length in enumerate((3, 20, 47, 90, 130, 16, 33))]
PARAMS = SamplingParams(max_tokens=24)


def executor(
    engine: EngineDir,
    tokens: int = 2048,
    policy: Policy = "guaranteed_no_evict",
    reuse: bool = True,
    lag: int = 0,
) -> Executor:
    return Executor(engine, KvCacheConfig(max_tokens=tokens, enable_block_reuse=reuse), policy, lag)


@pytest.fixture(scope="module")
def alone(engine: EngineDir) -> list[list[int]]:
    """Each prompt by itself, without sharing."""
    one = executor(engine, reuse=False)
    return [one.generate([prompt], PARAMS)[0] for prompt in PROMPTS]


def test_alone_equals_the_reference(alone: Sequence[list[int]], checkpoint: Checkpoint) -> None:
    """Prompts of 90 and 130 tokens are cut into chunks of max_num_tokens, 48."""
    reference = Forward(checkpoint)
    assert [reference.greedy(prompt, 24) for prompt in PROMPTS[:5]] == alone[:5]


@pytest.fixture
def two_layers(tmp_path: Path) -> Path:
    """The course model's first two layers, which compile sooner."""
    folder = tmp_path / "two layers"
    shutil.copytree(COURSE, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    tensors = load_file(folder / "model.safetensors")
    kept = {name: one for name, one in tensors.items() if not re.search(r"layers\.[2-9]", name)}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.mark.timeout(400)
def test_a_compiled_bfloat16_engine_is_close_to_the_reference(tmp_path: Path, two_layers: Path) -> None:
    """Each graph within 3 % of the largest logit; rotary frequencies in bfloat16 would be off by half of it."""
    checkpoint = open_checkpoint(convert(two_layers, tmp_path / "checkpoint", dtype="bfloat16"))
    one, reference = executor(build(checkpoint.directory, tmp_path / "engine", LIMITS)), Forward(checkpoint)
    for prompt in PROMPTS:
        want = reference.logits(prompt)[-1]
        blocks = list(range(1, 2 + len(prompt) // 16))
        found = [one.graphs.context([Chunk(prompt, 0, 0, blocks)])[0][0]]
        found += [one.graphs.generation([prompt[-1]] * 2, [len(prompt) - 1] * 2, [0, 0], [blocks] * 2)[0][1]]
        assert all((logits - want).abs().max() < 0.03 * want.abs().max() for logits in found)


@pytest.mark.parametrize("policy", ["guaranteed_no_evict", "max_utilization"])
@pytest.mark.parametrize("tokens", [2048, 320, 160])
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_together_equals_alone(
    engine: EngineDir, alone: list[list[int]], policy: Policy, tokens: int, lag: int
) -> None:
    """`lag` 1 is how a GPU runs: the next step is asked for before the last is read."""
    one = executor(engine, tokens, policy, lag=lag)
    assert one.generate(PROMPTS, PARAMS) == alone
    assert one.blocks.available == one.blocks.total


@pytest.mark.parametrize("lag", [0, 1])
def test_pausing_really_happened(engine: EngineDir, alone: list[list[int]], lag: int) -> None:
    """Seven requests in 320 tokens of cache: max_utilization starts more than fit, and pauses some."""
    one = executor(engine, 320, "max_utilization", lag=lag)
    requests = [Request(list(prompt), PARAMS) for prompt in PROMPTS]
    for request in requests:
        one.scheduler.add(request)
    most = 0
    while one.scheduler.waiting or one.scheduler.running:
        one.step()
        most = max(most, len(one.scheduler.running))
    assert sum(request.paused for request in requests) > 0 and most > 2
    assert [request.tokens[request.prompt :] for request in requests] == alone


def test_no_evict_never_pauses(engine: EngineDir) -> None:
    one = executor(engine, 320)
    requests = [Request(list(prompt), PARAMS) for prompt in PROMPTS]
    for request in requests:
        one.scheduler.add(request)
    while one.scheduler.waiting or one.scheduler.running:
        one.step()
    assert all(request.paused == 0 for request in requests)


def test_a_reused_prefix_gives_the_same_tokens(engine: EngineDir, alone: list[list[int]]) -> None:
    one = executor(engine)
    longer = [*PROMPTS[4], 1, 2, 3]
    want = executor(engine, reuse=False).generate([longer], PARAMS)
    assert one.generate([PROMPTS[4]], PARAMS) == [alone[4]]
    before = one.steps
    assert one.generate([longer], PARAMS) == want
    assert one.blocks.reused_tokens == 128 and one.steps - before == 24  # one chunk instead of three


def test_joining_and_leaving_at_any_step(engine: EngineDir, alone: list[list[int]]) -> None:
    one, requests = executor(engine), [Request(list(prompt), PARAMS) for prompt in PROMPTS]
    for request in requests:
        one.scheduler.add(request)
        one.step()
        one.step()
    while one.scheduler.waiting or one.scheduler.running:
        one.step()
    assert [request.tokens[request.prompt :] for request in requests] == alone


@pytest.mark.parametrize("lag", [0, 1])
def test_endings(engine: EngineDir, alone: list[list[int]], lag: int) -> None:
    one = executor(engine, lag=lag)
    first, third = alone[0][0], alone[0][2]
    assert one.generate([PROMPTS[0]], SamplingParams(max_tokens=24, end_id=first)) == [[first]]
    found = one.generate([PROMPTS[0]], SamplingParams(max_tokens=24, stop_words=((alone[0][1], third),)))[0]
    assert found == alone[0][: len(found)] and tuple(found[-2:]) == (alone[0][1], third)
    assert len(one.generate([PROMPTS[0]], SamplingParams(max_tokens=5))[0]) == 5


@pytest.mark.parametrize(
    ("prompt", "answer", "message"),
    [
        ([], 5, "prompt is empty"),
        ([1] * 193, 5, "prompt has 193 tokens, max_input_len is 192"),
        ([1] * 190, 70, "may reach 260 tokens, max_seq_len is 256"),
        ([1] * 100, 70, "may reach 170 tokens, the KV cache holds 160"),
    ],
)
def test_limits_are_named(engine: EngineDir, prompt: list[int], answer: int, message: str) -> None:
    one = executor(engine, 160)
    with pytest.raises(RequestError, match=message):
        one.generate([[1, 2], prompt], SamplingParams(max_tokens=answer))
    assert not one.scheduler.waiting and one.blocks.available == one.blocks.total


@st.composite
def traces(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """Arrivals: (step, prompt length, answer length, steps until it is cancelled; 0 for never)."""
    arrival = st.tuples(st.integers(0, 12), st.integers(1, 60), st.integers(1, 12), st.integers(0, 8))
    return draw(st.lists(arrival, min_size=1, max_size=12))


@settings(max_examples=25, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    trace=traces(), policy=st.sampled_from(["guaranteed_no_evict", "max_utilization"]), lag=st.integers(0, 1)
)
def test_any_trace_leaves_nothing(
    engine: EngineDir, trace: list[tuple[int, int, int, int]], policy: Policy, lag: int
) -> None:
    """Every request is answered once, or was cancelled; then every block is free."""
    one = executor(engine, 144, policy, lag=lag)
    requests = [Request([3] * prompt, SamplingParams(max_tokens=answer)) for _, prompt, answer, _ in trace]
    ends: dict[Request, list[str]] = {request: [] for request in requests}
    for turn in range(2000):
        for (arrives, _, _, cancel), request in zip(trace, requests, strict=True):
            if turn == arrives:
                one.scheduler.add(request)
            if cancel and turn == arrives + cancel:
                request.cancelled = True
        for request, output in one.step():
            if output.finish_reason:
                ends[request].append(output.finish_reason)
        if turn > 24 and not one.scheduler.waiting and not one.scheduler.running:
            break
    assert all(len(said) == 1 or (request.cancelled and not said) for request, said in ends.items())
    assert one.blocks.available == one.blocks.total


def test_streams_and_cancellation(engine: EngineDir, alone: list[list[int]]) -> None:
    one = AsyncExecutor(executor(engine))

    async def whole(prompt: list[int]) -> list[int]:
        return [output.token async for output in one.generate(prompt, PARAMS)]

    async def first_only(prompt: list[int]) -> int:
        stream = one.generate(prompt, PARAMS)
        async for output in stream:
            await stream.aclose()
            return output.token
        raise AssertionError

    async def everybody() -> list:
        return await asyncio.gather(*map(whole, PROMPTS), *map(first_only, PROMPTS))

    answers = asyncio.run(asyncio.wait_for(everybody(), 60))
    assert answers == [*alone, *(answer[0] for answer in alone)]
    one.close()
    one.executor.step()
    assert one.executor.blocks.available == one.executor.blocks.total


def test_a_broken_step_is_told_to_everybody_and_the_engine_goes_on(
    engine: EngineDir, alone: list[list[int]]
) -> None:
    one = AsyncExecutor(executor(engine))

    async def whole(prompt: list[int]) -> list[int]:
        return [output.token async for output in one.generate(prompt, PARAMS)]

    good, one.executor.graphs.generation = one.executor.graphs.generation, None
    with pytest.raises(TypeError):
        asyncio.run(asyncio.wait_for(whole(PROMPTS[0]), 60))
    one.executor.graphs.generation = good
    assert asyncio.run(asyncio.wait_for(whole(PROMPTS[0]), 60)) == alone[0]
    assert one.executor.blocks.available == one.executor.blocks.total
    one.close()
