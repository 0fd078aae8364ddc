"""`engineroom checkpoint`: convert, inspect, diff and plan, with the flags of NVIDIA's convert_checkpoint.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from engineroom.checkpoint import CheckpointError, Layout, Mapping, convert, open_checkpoint, open_model, plan
from engineroom.checkpoint.config import infer_dtype
from engineroom.checkpoint.convert import nbytes, source_bytes
from engineroom.checkpoint.diff import diff
from engineroom.checkpoint.inspect import describe, inspect
from engineroom.kit.command import application, run

app = application(__doc__, no_args_is_help=True)
Model = Annotated[Path, typer.Option("--model_dir", help="a Hugging Face folder with *.safetensors")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype", help="auto, bfloat16, float16 or float32; auto: the source's, but float16 for float32"
    ),
]
Tp = Annotated[int, typer.Option("--tp_size", help="ranks that share each layer")]
Pp = Annotated[int, typer.Option("--pp_size", help="stages that share the layers")]
Parallel = Annotated[bool, typer.Option("--use_parallel_embedding", help="cut the embedding table too")]
Dim = Annotated[int, typer.Option("--embedding_sharding_dim", help="0: by vocabulary; 1: by hidden size")]
Folder = Annotated[Path, typer.Argument(help="a TensorRT-LLM checkpoint")]


@app.command("convert")
def convert_command(
    model_dir: Model,
    output_dir: Annotated[Path, typer.Option("--output_dir")] = Path("tllm_checkpoint"),
    dtype: Dtype = "auto",
    tp_size: Tp = 1,
    pp_size: Pp = 1,
    use_parallel_embedding: Parallel = False,
    embedding_sharding_dim: Dim = 0,
) -> None:
    """Convert a Hugging Face folder to a TensorRT-LLM checkpoint."""
    layout = Layout(Mapping(tp_size, pp_size), use_parallel_embedding, embedding_sharding_dim)
    columns = (
        "[progress.description]{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("converting", total=source_bytes(open_model(model_dir)))
        convert(model_dir, output_dir, dtype=dtype, layout=layout, progress=lambda n: bar.advance(task, n))
    ranks = layout.mapping.world_size
    print(f"{output_dir}: config.json and {ranks} rank file{'s' * (ranks > 1)}")


@app.command("plan")
def plan_command(
    model_dir: Model,
    dtype: Dtype = "auto",
    tp_size: Tp = 1,
    pp_size: Pp = 1,
    use_parallel_embedding: Parallel = False,
    embedding_sharding_dim: Dim = 0,
) -> None:
    """Show what a conversion would write, without writing."""
    source = open_model(model_dir)
    layout = Layout(Mapping(tp_size, pp_size), use_parallel_embedding, embedding_sharding_dim)
    targets, chosen = plan(source.model, layout), infer_dtype(dtype, source.config)
    print(describe(targets, chosen))
    print(
        f"reads {source_bytes(source) / 1e9:.2f} GB, writes {nbytes(targets, chosen) / 1e9:.2f} GB as {chosen}"
    )


@app.command("inspect")
def inspect_command(
    folder: Folder, rank: Annotated[int | None, typer.Option(help="one rank; all if not given")] = None
) -> None:
    """List the tensors of a checkpoint: name, dtype, shape, bytes, by rank."""
    checkpoint = open_checkpoint(folder)
    if rank is not None and not 0 <= rank < len(checkpoint.ranks):
        raise CheckpointError(f"--rank {rank}: {folder} has ranks 0 to {len(checkpoint.ranks) - 1}.")
    print(inspect(checkpoint, rank))


@app.command("diff")
def diff_command(first: Folder, second: Folder) -> None:
    """Compare two checkpoints; exit status 1 when they differ in more than harmless configuration keys."""
    found = diff(open_checkpoint(first), open_checkpoint(second))
    print("\n".join(map(str, found)) or "no difference")
    raise typer.Exit(int(any(not one.harmless for one in found)))


if __name__ == "__main__":
    run(app)
