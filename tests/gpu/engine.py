"""`python -m tests.gpu.engine`: the engine on this GPU against the reference. CI has no GPU: run it after every change.

Prints what differs, and then ends with status 1.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from engineroom.checkpoint import ShardedModel, convert, open_checkpoint
from engineroom.engine.build import build
from engineroom.engine.config import BuildConfig
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.model_runner import ContextChunk
from engineroom.engine.runtime.sampling import SamplingParams

COURSE = Path(__file__).parents[2] / "models" / "course"
LIMITS = BuildConfig(max_batch_size=16, max_num_tokens=256)
PROMPTS = [[*range(100, 140)], [*range(500, 700)], [7] * 30, [*range(900, 1250)], [5], [3, 4]]
TOLERANCE = {"float32": 5e-6, "bfloat16": 3e-2}


def largest_difference(executor: Executor, reference: ShardedModel) -> float:
    """Of the logits, relative to the largest one: a context step, a generation step for all, and for each alone."""
    runner, slots = executor.model_runner, list(range(len(PROMPTS)))
    block_ids = [list(range(1 + 12 * slot, 13 + 12 * slot)) for slot in slots]
    last_token_ids = [prompt[-1] for prompt in PROMPTS]
    positions = [len(prompt) - 1 for prompt in PROMPTS]
    chunks = [ContextChunk(PROMPTS[slot], 0, slot, block_ids[slot]) for slot in slots]
    context_logits = runner.run_context(chunks)[0].cpu()  # [num_prompts, vocab_size]
    batch_logits = runner.run_generation(last_token_ids, positions, slots, block_ids)[0].cpu()
    largest = 0.0
    for slot in slots:
        expected = reference.logits(PROMPTS[slot])[-1]  # [vocab_size]
        single_logits, _ = runner.run_generation(
            [last_token_ids[slot]], [positions[slot]], [slot], [block_ids[slot]]
        )
        for logits in (context_logits[slot], batch_logits[slot], single_logits.cpu()[0]):
            difference = (logits - expected).abs().max() / expected.abs().max()
            largest = max(largest, float(difference))
    return largest


def check_dtype(dtype: str, folder: Path) -> list[str]:
    """What differs from the reference, in words."""
    checkpoint = open_checkpoint(convert(COURSE, folder / f"{dtype}-checkpoint", dtype=dtype))
    engine = build(checkpoint.directory, folder / dtype, LIMITS, device="cuda", log=lambda line: None)
    reference = ShardedModel(checkpoint)
    executor = Executor(engine, KvCacheConfig(max_tokens=8192, enable_block_reuse=False))
    difference = largest_difference(executor, reference)
    print(f"{dtype}: logits within {difference:.1e} of the reference")
    problems = []
    if not difference < TOLERANCE[dtype]:
        problems.append(f"{dtype}: logits differ by {difference:.1e}, allowed are {TOLERANCE[dtype]:.0e}")
    if dtype == "float32":
        problems += check_tokens(engine, executor, reference)
    return problems


def check_tokens(engine: EngineDir, executor: Executor, reference: ShardedModel) -> list[str]:
    """In float32 no two tokens are equally likely, so the tokens must be the same in whatever way they are computed."""
    problems = []
    greedy = SamplingParams(max_tokens=24)
    alone = [executor.generate([prompt], greedy)[0] for prompt in PROMPTS]
    if alone != [reference.greedy(prompt, 24) for prompt in PROMPTS]:
        problems.append("alone: other tokens than the reference")
    small_cache = Executor(engine, KvCacheConfig(max_tokens=512), "max_utilization")
    with_reuse = Executor(engine, KvCacheConfig(max_tokens=8192))
    with_reuse.generate(PROMPTS, greedy)
    outputs = {
        "together": executor.generate(PROMPTS, greedy),
        "preempted": small_cache.generate(PROMPTS * 3, greedy)[-len(PROMPTS) :],
        "with reused prefixes": with_reuse.generate(PROMPTS, greedy),
    }
    problems += [f"{name}: other tokens than alone" for name, output in outputs.items() if output != alone]
    sampled = SamplingParams(max_tokens=24, temperature=1.0, top_p=0.9, seed=3, logprobs=True)
    sampled_alone = [executor.generate([prompt], sampled)[0] for prompt in PROMPTS]
    if sampled_alone != executor.generate(PROMPTS, sampled):
        problems.append("sampled together: other tokens than alone")
    return problems


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        problems = [problem for dtype in TOLERANCE for problem in check_dtype(dtype, Path(folder))]
    print("\n".join(problems) or "no difference")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
