"""`engineroom checkpoint`: convert, inspect, diff and plan, with the flags of NVIDIA's convert_checkpoint.py."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from engineroom.checkpoint import (
    CheckpointError,
    Mapping,
    Sharding,
    convert,
    diff,
    inspect,
    open_checkpoint,
    open_model,
    plan,
)
from engineroom.checkpoint.config import infer_dtype
from engineroom.checkpoint.convert import nbytes
from engineroom.checkpoint.inspect import describe
from engineroom.kit.command import application, run

app = application(__doc__, no_args_is_help=True)
ModelDir = Annotated[Path, typer.Option("--model_dir", help="a Hugging Face folder with *.safetensors")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="auto, bfloat16, float16 or float32; auto keeps the model's dtype, except that float32 becomes float16",
    ),
]
TpSize = Annotated[int, typer.Option("--tp_size", help="ranks that share each layer")]
PpSize = Annotated[int, typer.Option("--pp_size", help="pipeline stages, which share the layers")]
ParallelEmbedding = Annotated[
    bool, typer.Option("--use_parallel_embedding", help="shard the embedding table too")
]
ShardingDim = Annotated[
    int, typer.Option("--embedding_sharding_dim", help="0: by vocabulary; 1: by hidden size")
]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow_links/--no_follow_links", help="read weight files that links lead outside the model folder"
    ),
]
CheckpointDir = Annotated[Path, typer.Argument(help="a TensorRT-LLM checkpoint")]


@app.command("convert")
def convert_command(
    model_dir: ModelDir,
    output_dir: Annotated[Path, typer.Option("--output_dir", help="a new or an empty folder")] = Path(
        "tllm_checkpoint"
    ),
    dtype: Dtype = "auto",
    tp_size: TpSize = 1,
    pp_size: PpSize = 1,
    use_parallel_embedding: ParallelEmbedding = False,
    embedding_sharding_dim: ShardingDim = 0,
    follow_links: FollowLinks = True,
) -> None:
    """Convert a Hugging Face folder to a TensorRT-LLM checkpoint."""
    sharding = Sharding(Mapping(tp_size, pp_size), use_parallel_embedding, embedding_sharding_dim)
    with _progress_bar() as progress:
        task = progress.add_task("converting", total=open_model(model_dir, follow_links).nbytes)
        convert(
            model_dir,
            output_dir,
            dtype=dtype,
            sharding=sharding,
            on_read=partial(progress.advance, task),
            follow_links=follow_links,
        )
    ranks = sharding.mapping.world_size
    print(f"{output_dir}: config.json and {ranks} rank file{'s' * (ranks > 1)}")


def _progress_bar() -> Progress:
    """A progress bar on standard error; it is hidden unless standard error is a terminal."""
    return Progress(
        "[progress.description]{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


@app.command("plan")
def plan_command(
    model_dir: ModelDir,
    dtype: Dtype = "auto",
    tp_size: TpSize = 1,
    pp_size: PpSize = 1,
    use_parallel_embedding: ParallelEmbedding = False,
    embedding_sharding_dim: ShardingDim = 0,
    follow_links: FollowLinks = True,
) -> None:
    """Show what a conversion would write, without writing it."""
    source = open_model(model_dir, follow_links)
    sharding = Sharding(Mapping(tp_size, pp_size), use_parallel_embedding, embedding_sharding_dim)
    targets, target_dtype = plan(source.model, sharding), infer_dtype(dtype, source.model.dtype)
    print(describe(targets, target_dtype))
    written = nbytes(targets, target_dtype)
    print(f"reads {source.nbytes / 1e9:.2f} GB, writes {written / 1e9:.2f} GB as {target_dtype}")


@app.command("inspect")
def inspect_command(
    folder: CheckpointDir,
    rank: Annotated[int | None, typer.Option(help="list this rank only")] = None,
) -> None:
    """List the tensors of a checkpoint: name, dtype, shape, bytes, by rank."""
    checkpoint = open_checkpoint(folder)
    if rank is not None and not 0 <= rank < len(checkpoint.ranks):
        raise CheckpointError(f"--rank {rank}: {folder} has ranks 0 to {len(checkpoint.ranks) - 1}.")
    print(inspect(checkpoint, rank))


@app.command("diff")
def diff_command(first: CheckpointDir, second: CheckpointDir) -> None:
    """Compare two checkpoints; exit status 1 when they differ in more than harmless configuration keys."""
    differences = diff(open_checkpoint(first), open_checkpoint(second))
    print("\n".join(str(difference) for difference in differences) or "no difference")
    if not all(difference.harmless_reason for difference in differences):
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
