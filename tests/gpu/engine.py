"""`python -m tests.gpu.engine`: the engine on this GPU against the reference. CI has no GPU: run it after every change.

Ends with status 1 and prints what differs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from engineroom.checkpoint import ShardedModel, convert, open_checkpoint
from engineroom.engine.build import build
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import ContextChunk
from engineroom.engine.runtime.request import Request
from engineroom.engine.runtime.sampling import SamplingParams

COURSE = Path(__file__).parents[2] / "models" / "course"
LIMITS = BuildConfig(max_batch_size=16, max_num_tokens=256)
PROMPTS = [[*range(100, 140)], [*range(500, 700)], [7] * 30, [*range(900, 1250)], [5], [3, 4]]
BLOCKS_PER_PROMPT = 12
TOLERANCE = {"float32": 5e-6, "bfloat16": 3e-2}


def largest_error(executor: Executor, reference: ShardedModel) -> float:
    """The largest difference of a logit, relative to the largest logit of its row.

    Each prompt is computed in three ways: in one context step, in a batch of different sequences, and alone.
    """
    runner = executor.model_runner
    slots = list(range(len(PROMPTS)))
    first_blocks = [1 + BLOCKS_PER_PROMPT * slot for slot in slots]
    block_ids = [list(range(first, first + BLOCKS_PER_PROMPT)) for first in first_blocks]
    chunks = [ContextChunk(PROMPTS[slot], 0, slot, block_ids[slot]) for slot in slots]
    context = runner.run_context(chunks)[0].cpu()  # [num_prompts, vocab_size]
    token_ids = [prompt[-1] for prompt in PROMPTS]
    positions = [len(prompt) - 1 for prompt in PROMPTS]
    batch = runner.run_generation(token_ids, positions, slots, block_ids)[
        0
    ].cpu()  # [num_prompts, vocab_size]
    errors: list[float] = []
    for slot, prompt in enumerate(PROMPTS):
        single = runner.run_generation([token_ids[slot]], [positions[slot]], [slot], [block_ids[slot]])[
            0
        ].cpu()[0]
        expected = reference.logits(prompt)[-1]
        errors += [relative_error(logits, expected) for logits in (context[slot], batch[slot], single)]
    return float(torch.tensor(errors).max())  # NaN if one of them is


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """actual, expected [vocab_size]."""
    return float((actual - expected).abs().max() / expected.abs().max())


def check(dtype: str, folder: Path) -> list[str]:
    """What differs in this dtype, one line each."""
    checkpoint = open_checkpoint(convert(COURSE, folder / f"{dtype}-checkpoint", dtype=dtype))
    engine = build(checkpoint.directory, folder / dtype, LIMITS, device="cuda", log=lambda line: None)
    reference = ShardedModel(checkpoint)
    executor = Executor(engine, KvCacheConfig(max_tokens=8192, enable_block_reuse=False))
    error = largest_error(executor, reference)
    print(f"{dtype}: logits within {error:.1e} of the reference")
    differences: list[str] = []
    if not error < TOLERANCE[dtype]:
        differences.append(f"{dtype}: logits differ by {error:.1e}, allowed are {TOLERANCE[dtype]:.0e}")
    if dtype == "float32":
        differences += check_tokens(engine, executor, reference)
    return differences


def check_tokens(engine: EngineDir, executor: Executor, reference: ShardedModel) -> list[str]:
    """In float32 no two tokens have the same logit, so the same tokens must come however they are computed."""
    greedy = SamplingParams(max_tokens=24)
    differences: list[str] = []
    alone = [executor.generate([prompt], greedy)[0] for prompt in PROMPTS]
    if alone != [reference.greedy(prompt, 24) for prompt in PROMPTS]:
        differences.append("alone: other tokens than the reference")
    preempting = Executor(engine, KvCacheConfig(max_tokens=512), "max_utilization")
    reusing = Executor(engine, KvCacheConfig(max_tokens=8192))
    reusing.generate(PROMPTS, greedy)  # fills the cache
    outputs = {
        "together": executor.generate(PROMPTS, greedy),
        "preempted": preempting.generate(PROMPTS * 3, greedy)[-len(PROMPTS) :],
        "with cached prefixes": reusing.generate(PROMPTS, greedy),
    }
    differences += [f"{name}: other tokens than alone" for name, tokens in outputs.items() if tokens != alone]
    sampled = SamplingParams(max_tokens=24, temperature=1.0, top_p=0.9, seed=3, logprobs=2)
    if [executor.generate([prompt], sampled)[0] for prompt in PROMPTS] != executor.generate(PROMPTS, sampled):
        differences.append("sampled together: other tokens than alone")
    return differences + check_rules(engine, executor, reference)


def check_rules(engine: EngineDir, executor: Executor, reference: ShardedModel) -> list[str]:
    """Penalties, biases and min_tokens in CUDA graphs with overlap; log-probabilities of prompts."""
    rules = [
        SamplingParams(max_tokens=24, presence_penalty=2, frequency_penalty=2, logprobs=2),
        SamplingParams(max_tokens=24, repetition_penalty=3.0, temperature=1.0, seed=5),
        SamplingParams(max_tokens=24, end_id=7, min_tokens=20, logit_bias=((7, 100.0),)),
        SamplingParams(max_tokens=24, prompt_logprobs=2),
    ]
    without_overlap = Executor(engine, KvCacheConfig(max_tokens=8192, enable_block_reuse=False), overlap=0)
    differences: list[str] = []
    for params in rules:
        alone = [without_overlap.generate([prompt], params)[0] for prompt in PROMPTS]
        if alone != executor.generate(PROMPTS, params):
            differences.append(f"{params}: other tokens together than alone")
    if any(len(output) != 21 for output in without_overlap.generate(PROMPTS, rules[2])):
        differences.append("min_tokens: an output did not end after 20 tokens")
    request = Request(list(PROMPTS[1]), rules[3])
    executor.scheduler.add(request)
    while executor.scheduler.has_requests:
        executor.step()
    expected = reference.logits(PROMPTS[1]).log_softmax(-1)  # [num_tokens, vocab_size]
    chosen = [float(expected[row, token_id]) for row, token_id in enumerate(PROMPTS[1][1:])]
    actual = [entry.logprob for entry in request.prompt_logprobs]
    if len(actual) != len(chosen) or not max(abs(a - b) for a, b in zip(actual, chosen, strict=True)) < 1e-2:
        differences.append("log-probabilities of a prompt differ from the reference")
    return differences


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        differences = [line for dtype in TOLERANCE for line in check(dtype, Path(folder))]
    print("\n".join(differences) or "all as it should be")
    sys.exit(bool(differences))


if __name__ == "__main__":
    main()
