"""The functions behind the commands that write a folder or a file. As a program: write everything to one folder.

    python -m tests.tools.commands.writers CHECKPOINT ENGINE FOLDER...

prints, for each writer and folder, what happened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from engineroom.checkpoint import convert
from engineroom.compare.workload import BatchWorkload
from engineroom.engine.build import build, refit
from engineroom.engine.config import BuildConfig
from engineroom.kit.errors import UserError
from engineroom.kit.record import Record
from engineroom.metrics.grafana import write_dashboard
from engineroom.profile.record import profile_engine
from engineroom.triton.deployment import describe
from engineroom.triton.render import render
from tools.author.report import RunReport
from tools.author.work import sync

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "draft"
LIMITS = BuildConfig(max_batch_size=2, max_seq_len=64)
Writer = Callable[[Path, Path, Path], object]  # of a checkpoint, an engine and the folder


def save_record(checkpoint: Path, engine: Path, folder: Path) -> None:
    Record.measured(name="r", what="a test", unit="s", samples=[1.0], command="true").save(folder)


def write_report(checkpoint: Path, engine: Path, folder: Path) -> None:
    from engineroom.kit.machine import machine

    RunReport(started="now", machine=machine(), parameters={}).save(folder)


FOLDERS: dict[str, Writer] = {  # a directory that is complete or absent
    "convert": lambda checkpoint, engine, folder: convert(MODEL, folder),
    "build": lambda checkpoint, engine, folder: build(checkpoint, folder, LIMITS, tokenizer_dir=MODEL),
    "refit": lambda checkpoint, engine, folder: refit(engine, checkpoint, folder),
    "render": lambda checkpoint, engine, folder: render(describe(engine_dir=engine), folder),
}
FILES: dict[str, Writer] = {  # files in a directory that may contain others
    "record": save_record,
    "report": write_report,
    "sync": lambda checkpoint, engine, folder: sync(folder),
    "dashboard": lambda checkpoint, engine, folder: write_dashboard(folder / "dashboard.json"),
    "profile": lambda checkpoint, engine, folder: profile_engine(engine, BatchWorkload(1, 4, 2), 2, folder),
}


def main(checkpoint: Path, engine: Path, *folders: Path) -> None:
    for (name, writer), folder in zip((FOLDERS | FILES).items(), folders, strict=True):
        try:
            writer(checkpoint, engine, folder)
            print(f"{name}: written")
        except UserError as error:
            print(f"{name}: refused, {error}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
