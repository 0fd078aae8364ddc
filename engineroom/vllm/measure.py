"""`engineroom vllm measure`: measure vLLM on this machine, closed loop, and keep the result as records.

The batch sizes are interleaved: each repetition runs all of them once, so that a slow minute hits all alike.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from engineroom import vllm
from engineroom.kit.process import Server
from engineroom.kit.record import command_line, keep
from engineroom.load.drive import closed_loop, random_prompts
from engineroom.load.shape import SHAPES, write_shape
from engineroom.load.stats import summary

Numbers = dict[str, dict[str, list[float]]]
SERIES = {
    "streams": ("tokens_per_s", "tokens/s", "output tokens per second"),
    "tpot": ("tpot_p50", "s", "median TPOT"),
    "ttft": ("ttft_p50", "s", "median TTFT"),
}


async def measure(
    server: Server, users: list[int], tokens: int, max_tokens: int, repeat: int, vocabulary: int
) -> Numbers:
    """Samples by series and batch size; one warm-up round is not counted."""
    found: Numbers = {name: {} for name in SERIES}
    for round_ in range(repeat + 1):
        for n in users:
            prompts = random_prompts(2 * n, tokens, seed=1000 * round_ + n, vocab=range(300, vocabulary))
            traces = await closed_loop(
                server, prompts, max_tokens, n, model="model", ignore_eos=True, temperature=0
            )
            numbers = summary(traces)
            if numbers["failed"]:
                raise RuntimeError(
                    f"{numbers['failed']} requests failed: {next(t.error for t in traces if t.error)}"
                )
            for name, (key, _, _) in SERIES.items():
                if round_:
                    found[name].setdefault(f"{n} streams" if n > 1 else "1 stream", []).append(numbers[key])
    return found


def measure_command(
    model: Annotated[
        str, typer.Argument(help=f"a model, or a shape without weights: {', '.join(SHAPES)}")
    ] = "course",
    name: Annotated[str, typer.Option(help="of the records, e.g. vllm-h200-8b")] = "vllm-here",
    users: Annotated[list[int] | None, typer.Option(help="streams at once; may be repeated")] = None,
    tokens: Annotated[int, typer.Option(help="prompt length")] = 128,
    max_tokens: Annotated[int, typer.Option(help="answer length")] = 128,
    repeat: int = 5,
    out: Annotated[Path | None, typer.Option(help="folder; records/measured if not given")] = None,
) -> None:
    """Start vLLM on MODEL, send closed-loop load, write one record each for throughput, TTFT and TPOT."""
    users = users or [1, 4, 16]
    with tempfile.TemporaryDirectory() as folder:
        flags: dict[str, object] = {"max_num_seqs": max(users), "served_model_name": "model", "timeout": 550}
        if model in SHAPES:
            flags |= {"load_format": "dummy", "enable_prefix_caching": False}
        path = str(write_shape(model, Path(folder))) if model in SHAPES else model
        vocabulary = int(SHAPES[model]["vocab_size"]) if model in SHAPES else 4000
        with vllm.serve(path, **flags) as server:
            started = server.seconds_to_ready
            found = asyncio.run(measure(server, users, tokens, max_tokens, repeat, vocabulary))
    each = [word for count in users for word in ("--users", count)]
    command = command_line(
        "vllm measure", model, *each, name=name, tokens=tokens, max_tokens=max_tokens, repeat=repeat
    )
    what = f"vLLM on {model}, closed loop, {tokens} tokens in, {max_tokens} out"
    rows = [(series, f"{what}: {label}", unit, found[series]) for series, (_, unit, label) in SERIES.items()]
    rows.append(("start", f"vLLM on {model}: from the command to ready", "s", {"value": [started]}))
    keep(name, rows, command, out)
