"""`python -m tests.gpu.engine`: the engine on this GPU against the reference. CI has none: run it after every change.

Ends with 1 and says what differs.
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
from engineroom.engine.runtime.model_runner import Chunk
from engineroom.engine.runtime.sampling import SamplingParams

COURSE = Path(__file__).parents[2] / "models" / "course"
LIMITS = BuildConfig(max_batch_size=16, max_num_tokens=256)
PROMPTS = [[*range(100, 140)], [*range(500, 700)], [7] * 30, [*range(900, 1250)], [5], [3, 4]]
TOLERANCE = {"float32": 5e-6, "bfloat16": 3e-2}


def logits(one: Executor, reference: ShardedModel) -> float:
    """The largest difference, relative to the largest logit: context, batch of different sequences, single."""
    worst = 0.0
    tables = [[*range(1 + 12 * n, 13 + 12 * n)] for n in range(len(PROMPTS))]
    want = [reference.logits(prompt)[-1] for prompt in PROMPTS]
    together = one.graphs.context([Chunk(p, 0, n, tables[n]) for n, p in enumerate(PROMPTS)])[0].cpu()
    last, places, seats = [p[-1] for p in PROMPTS], [len(p) - 1 for p in PROMPTS], [*range(len(PROMPTS))]
    batch = one.graphs.generation(last, places, seats, tables)[0].cpu()
    for n, right in enumerate(want):
        single = one.graphs.generation([last[n]], [places[n]], [n], [tables[n]])[0].cpu()[0]
        for found in (together[n], batch[n], single):
            worst = max(worst, float((found - right).abs().max() / right.abs().max()))
    return worst


def check(dtype: str, place: Path) -> list[str]:
    checkpoint = open_checkpoint(convert(COURSE, place / f"{dtype}-checkpoint", dtype=dtype))
    engine = build(checkpoint.directory, place / dtype, LIMITS, device="cuda", say=lambda line: None)
    reference, wrong = ShardedModel(checkpoint), []
    one = Executor(engine, KvCacheConfig(max_tokens=8192, enable_block_reuse=False))
    worst = logits(one, reference)
    print(f"{dtype}: logits within {worst:.1e} of the reference")
    if not worst < TOLERANCE[dtype]:
        wrong.append(f"{dtype}: logits differ by {worst:.1e}, allowed are {TOLERANCE[dtype]:.0e}")
    return wrong + (tokens(engine, one, reference) if dtype == "float32" else [])


def tokens(engine: EngineDir, one: Executor, reference: ShardedModel) -> list[str]:
    """In float32 no two tokens are as good, so the same ones must come however they are computed."""
    greedy, wrong = SamplingParams(max_tokens=24), []
    alone = [one.generate([prompt], greedy)[0] for prompt in PROMPTS]
    if alone != [reference.greedy(prompt, 24) for prompt in PROMPTS]:
        wrong.append("alone: other tokens than the reference")
    little = Executor(engine, KvCacheConfig(max_tokens=512), "max_utilization")
    shared = Executor(engine, KvCacheConfig(max_tokens=8192))
    for name, made in (
        ("together", one.generate(PROMPTS, greedy)),
        ("paused", little.generate(PROMPTS * 3, greedy)[-len(PROMPTS) :]),
        ("with prefixes", [shared.generate(PROMPTS, greedy) for _ in range(2)][1]),
    ):
        if made != alone:
            wrong.append(f"{name}: other tokens than alone")
    drawn = SamplingParams(max_tokens=24, temperature=1.0, top_p=0.9, seed=3, logprobs=True)
    if [one.generate([prompt], drawn)[0] for prompt in PROMPTS] != one.generate(PROMPTS, drawn):
        wrong.append("drawn together: other tokens than alone")
    return wrong


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        wrong = [line for dtype in TOLERANCE for line in check(dtype, Path(place))]
    print("\n".join(wrong) or "all as it should be")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
