"""`engineroom quality score --model models/course` or `--url http://127.0.0.1:8000`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engineroom.kit.command import application, run
from engineroom.kit.record import command_line, require_records_folder
from engineroom.quality import ITEMS_PER_TASK, PASS_SHARE, evaluate_folder, held_out, score
from engineroom.quality.http import http_generate
from engineroom.quality.record import quality_records

app = application(__doc__, no_args_is_help=True)


@app.callback()
def group() -> None:
    """Score the answers of a model or a server."""


@app.command("score")
def evaluate(
    model: Annotated[Path | None, typer.Option(help="Hugging Face folder, run by transformers")] = None,
    url: Annotated[str | None, typer.Option(help="OpenAI-compatible server, without /v1")] = None,
    items: Annotated[int, typer.Option(min=1, help="held-out items of each task")] = ITEMS_PER_TASK,
    device: Annotated[str, typer.Option(help="cpu or cuda, for --model")] = "cpu",
    record: Annotated[str | None, typer.Option(help="name of the records to save the result as")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="folder for the records", show_default="records/measured")
    ] = None,
) -> None:
    """Ask the held-out items and print exact match by task; exit status 1 when a task is below the bar."""
    if record:
        require_records_folder(folder)
    if model and not url:
        scores = evaluate_folder(model, items, device)
        command = command_line("quality score", model=model, items=items, device=device)
    elif url and not model:
        scores = score(http_generate(url), held_out(items))
        command = command_line("quality score", url=url, items=items)
    else:
        raise typer.BadParameter("give either --model FOLDER or --url http://host:port")
    print(scores.summary())
    for measured in quality_records(record, scores, command) if record else []:
        print(f"saved {measured.save(folder).name}")
    raise typer.Exit(0 if scores.worst >= PASS_SHARE else 1)


if __name__ == "__main__":
    run(app)
