"""`engineroom vllm measure`: measure vLLM on this machine in a closed loop, and save the result as records.

The batch sizes are interleaved: each round runs all of them once, so that a slow minute affects all of them alike.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from engineroom import vllm
from engineroom.kit.errors import UserError
from engineroom.kit.process import Server
from engineroom.kit.record import command_line, require_records_folder, save_records
from engineroom.load.drive import closed_loop, random_prompts
from engineroom.load.shape import SHAPES, write_shape
from engineroom.load.stats import summary
from engineroom.load.trace import Trace

COURSE_VOCABULARY = 4000  # token ids below it exist in the course model and in larger ones
Samples = dict[str, dict[str, list[float]]]  # by series, then by batch size


class Series(NamedTuple):
    """A record to write: its key in `summary`, its unit and its title."""

    key: str
    unit: str
    title: str


SERIES = {
    "streams": Series("tokens_per_s", "tokens/s", "output tokens per second"),
    "tpot": Series("tpot_p50", "s", "median TPOT"),
    "ttft": Series("ttft_p50", "s", "median TTFT"),
}


class RequestsFailed(UserError, RuntimeError):
    """Requests of a measurement failed; the message has the server's first error."""


async def measure_batch_sizes(
    server: Server, batch_sizes: list[int], tokens: int, max_tokens: int, rounds: int, vocabulary: int
) -> Samples:
    """Samples by series and batch size. One more round comes first, as a warm-up that is not counted.

    ``tokens`` is the prompt length, ``vocabulary`` the number of token ids that prompts are drawn from. Raises
    RequestsFailed and LoadError.
    """
    samples: Samples = {name: {} for name in SERIES}
    for round_index in range(rounds + 1):
        for batch_size in batch_sizes:
            seed = 1000 * round_index + batch_size
            prompts = random_prompts(2 * batch_size, tokens, seed, range(300, vocabulary))
            traces = await closed_loop(
                server, prompts, max_tokens, batch_size, model="model", ignore_eos=True, temperature=0
            )
            statistics = _statistics(traces)
            if round_index == 0:
                continue
            label = f"{batch_size} streams" if batch_size > 1 else "1 stream"
            for name, series in SERIES.items():
                samples[name].setdefault(label, []).append(statistics[series.key])
    return samples


def _statistics(traces: list[Trace]) -> dict[str, float]:
    statistics = summary(traces)
    if statistics["failed"]:
        error = next((trace.error for trace in traces if trace.error), "the answer was empty")
        raise RequestsFailed(
            f"{statistics['failed']} of {len(traces)} requests failed. The first error: {error}"
        )
    return statistics


def measure(
    model: Annotated[
        str, typer.Argument(help=f"a model, or a shape without weights: {', '.join(SHAPES)}")
    ] = "course",
    name: Annotated[str, typer.Option(help="name of the records, such as vllm-h200-8b")] = "vllm-here",
    users: Annotated[
        list[int] | None,
        typer.Option(min=1, help="streams at once; may be repeated", show_default="1, 4, 16"),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="prompt length in tokens")] = 128,
    max_tokens: Annotated[int, typer.Option(min=1, help="answer length in tokens")] = 128,
    repeat: Annotated[int, typer.Option(min=1, help="rounds, after one that is not counted")] = 5,
    out: Annotated[
        Path | None, typer.Option(help="folder for the records", show_default="records/measured")
    ] = None,
) -> None:
    """Start vLLM on MODEL, send closed-loop load, write one record each for throughput, TTFT and TPOT."""
    require_records_folder(out)
    batch_sizes = users or [1, 4, 16]
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(model, Path(folder), max_num_seqs=max(batch_sizes)) as server,
    ):
        start_seconds = server.seconds_to_ready or 0.0
        vocabulary = SHAPES[model]["vocab_size"] if model in SHAPES else COURSE_VOCABULARY
        samples = asyncio.run(
            measure_batch_sizes(server, batch_sizes, tokens, max_tokens, repeat, vocabulary)
        )
    user_options = [word for batch_size in batch_sizes for word in ("--users", batch_size)]
    command = command_line(
        "vllm measure", model, *user_options, name=name, tokens=tokens, max_tokens=max_tokens, repeat=repeat
    )
    what = f"vLLM on {model}, closed loop, {tokens} tokens in, {max_tokens} out"
    rows = [(end, f"{what}: {series.title}", series.unit, samples[end]) for end, series in SERIES.items()]
    rows.append(("start", f"vLLM on {model}: from the command to ready", "s", {"value": [start_seconds]}))
    save_records(name, rows, command, out)


def serve(model: str, folder: Path, *, env: dict[str, str] | None = None, **flags: object) -> Server:
    """vLLM on a model, or on random weights in the shape of one, which ``folder`` then holds, under the name `model`.

    ``env``, ``flags`` and errors as in ``vllm.serve``.
    """
    if model in SHAPES:
        flags |= {"load_format": "dummy", "enable_prefix_caching": False}
        model = str(write_shape(model, folder))
    return vllm.serve(model, name="vllm", timeout=550, env=env, served_model_name="model", **flags)
