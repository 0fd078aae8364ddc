"""The commands of `engineroom` with arguments for each, read from the tree of commands, and one run of a command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from engineroom.kit import keeper
from engineroom.kit.command_group import load_command
from engineroom.kit.process import free_port, responds
from tests.engineroom.kit.sigint import with_sigint
from tests.engineroom.kit.stubborn import alive
from tests.engineroom.profile.chrome import write_step
from tools.__main__ import COMMANDS
from tools.author.files import ROOT

MARK = "ENGINEROOM_TEST_RUN"
IMPORTED = (
    "import time:"  # begins each line of PYTHONPROFILEIMPORTTIME, which tells how far a command has come
)


@dataclass(frozen=True)
class Inputs:
    """What commands read."""

    model: Path
    checkpoint: Path
    engine: Path
    repository: Path


Arguments = Callable[[Inputs, Path], list[object]]
Event = Callable[["Run"], bool]


@dataclass
class Run:
    """A command that runs, with its own TMPDIR and home; `log` has the lines of stdout and stderr so far."""

    process: subprocess.Popen[bytes]
    folder: Path
    mark: str
    url: str

    def text(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def lines(self) -> list[str]:
        return [line for line in self.text().splitlines() if not line.startswith(IMPORTED)]

    def family(self) -> list[psutil.Process]:
        """Every process that this run has started and that still runs, wherever it has gone."""
        processes = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and alive(process.pid):
                    processes.append(process)
        return processes

    def temporary_files(self) -> list[str]:
        return os.listdir(self.folder / "tmp")


def imported(module: str) -> Event:
    return lambda run: any(line.endswith(f" {module}") for line in run.text().splitlines())


def printed(text: str) -> Event:
    return lambda run: any(text in line for line in run.lines())


def has_child(words: str) -> Event:
    return lambda run: any(words in words_of(process) for process in children(run))


def has_server(run: Run) -> bool:
    """A keeper has started a server for this command."""
    return any(keeper.is_keeper(process) and process.children() for process in children(run))


def answers(path: str) -> Event:
    return lambda run: responds(run.url + path)


def children(run: Run) -> list[psutil.Process]:
    with suppress(psutil.Error):
        family = psutil.Process(run.process.pid).children(recursive=True)
        return [process for process in family if alive(process.pid)]
    return []


def words_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def command_paths() -> Iterator[str]:
    """The words of every command that does something, such as "checkpoint convert"."""

    def walk(words: list[str], command: Any) -> Iterator[str]:
        commands = getattr(command, "commands", {})
        for name, subcommand in commands.items():
            yield from walk([*words, name], subcommand)
        if not commands or command.invoke_without_command:
            yield " ".join(words)

    for name, target in COMMANDS.items():
        yield from walk([name], load_command(target))


@dataclass(frozen=True)
class Case:
    """How to call a command. Without `busy` it ends by itself; else it is at work, or serves, from that event on.

    `program` is the program that takes the process over and has its own way to end, if any.
    """

    arguments: Arguments = field(default=lambda inputs, folder: [])
    busy: Event | None = None
    statuses: tuple[int, ...] = (0,)
    program: str = ""


WORKLOAD = ["--workloads", "1x8-8", "--rounds", 1, "--out"]
CASES: dict[str, Case] = {
    "lab": Case(
        lambda inputs, folder: ["--work", folder / "work", "--port", "{port}", "--no-browser"],
        printed("is running at"),
        program="JupyterLab, which asks in the terminal whether Ctrl-C is meant",
    ),
    "run": Case(lambda inputs, folder: ["00"], imported("labs.preflight")),
    "stop": Case(),
    "machine": Case(),
    "bill": Case(),
    "progress": Case(lambda inputs, folder: ["--report", folder / "progress.html"]),
    "progress map": Case(),
    "progress verify": Case(lambda inputs, folder: [inputs.model / "README.md"], statuses=(1,)),
    "sync": Case(lambda inputs, folder: ["--work", folder / "work"]),
    "lessons": Case(lambda inputs, folder: ["00", "--check"], statuses=(0, 1)),
    "gates": Case(lambda inputs, folder: ["00"], statuses=(0, 1)),
    "records schema": Case(),
    "timing lessons": Case(busy=has_child("git clone")),
    "timing conversion": Case(
        lambda inputs, folder: ["qwen2.5-0.5b", "--out", folder],
        has_child("spawn_main"),
    ),
    "checkpoint convert": Case(
        lambda inputs, folder: ["--model_dir", inputs.model, "--output_dir", folder / "checkpoint"]
    ),
    "checkpoint plan": Case(lambda inputs, folder: ["--model_dir", inputs.model, "--tp_size", 2]),
    "checkpoint inspect": Case(lambda inputs, folder: [inputs.checkpoint]),
    "checkpoint diff": Case(lambda inputs, folder: [inputs.checkpoint, inputs.checkpoint]),
    "build": Case(
        lambda inputs, folder: ["--checkpoint_dir", inputs.checkpoint, "--output_dir", folder / "engine"],
        lambda run: bool(children(run)),
    ),
    "refit": Case(
        lambda inputs, folder: [
            inputs.engine, "--checkpoint_dir", inputs.checkpoint, "--output_dir", folder / "refitted",
        ]
    ),
    "inspect": Case(lambda inputs, folder: [inputs.engine]),
    "generate": Case(lambda inputs, folder: [inputs.engine, "--input_text", "What is TTFT?"]),
    "serve": Case(lambda inputs, folder: [inputs.engine, "--port", "{port}"], answers("/health")),
    "triton render": Case(
        lambda inputs, folder: [folder / "repository", "--engine_dir", inputs.engine]
    ),
    "triton check": Case(lambda inputs, folder: [inputs.repository]),
    "triton serve": Case(lambda inputs, folder: [inputs.repository], printed("HTTP http")),
    "triton openai": Case(
        lambda inputs, folder: [inputs.engine, "--port", "{port}"], printed("Uvicorn running")
    ),
    "trtllm": Case(lambda inputs, folder: ["flags"]),
    "vllm measure": Case(lambda inputs, folder: ["course", "--out", folder], has_server),
    "compare offline": Case(
        lambda inputs, folder: ["--model", inputs.model, *WORKLOAD, folder, "--device", "cpu"],
        lambda run: bool(children(run)),
    ),
    "compare served": Case(
        lambda inputs, folder: ["--model", inputs.model, *WORKLOAD, folder, "--device", "cpu"],
        lambda run: bool(children(run)),
    ),
    "compare triton-overhead": Case(
        lambda inputs, folder: ["--model", inputs.model, "--rounds", 1, "--out", folder],
        lambda run: bool(children(run)),
    ),
    "quality score": Case(lambda inputs, folder: ["--model", inputs.model], imported("engineroom.quality.local")),
    "profile engine": Case(lambda inputs, folder: [inputs.engine, "--workload", "2x8-8", "--out", folder]),
    "profile vllm": Case(lambda inputs, folder: ["course", "--out", folder], has_server),
    "profile reduce": Case(lambda inputs, folder: [write_step(folder / "trace.json"), "--out", folder / "reduced.gz"]),
    "profile table": Case(lambda inputs, folder: [write_step(folder / "trace.json")]),
    "profile ceilings": Case(lambda inputs, folder: ["--device", "cpu"]),
    "metrics grafana": Case(lambda inputs, folder: ["--out", folder / "dashboard.json"]),
}  # fmt: skip


def start(name: str, inputs: Inputs, folder: Path, sigint: signal.Handlers, redirection: str = "") -> Run:
    """Start a command in the repository; its output goes to a file unless the shell's `redirection` says otherwise."""
    (folder / "tmp").mkdir()
    port, mark = free_port(), uuid4().hex
    arguments = [
        str(argument).replace("{port}", str(port)) for argument in CASES[name].arguments(inputs, folder)
    ]
    command = [str(Path(sys.executable).with_name("engineroom")), *name.split(), *arguments]
    environment = os.environ | {
        MARK: mark,
        "SPT_NOENV": "1",  # setproctitle would overwrite the mark
        "TMPDIR": str(folder / "tmp"),
        "ENGINEROOM_HOME": str(folder / "home"),
        "ENGINEROOM_BUILDS": str(folder / "builds"),
        "PYTHONPROFILEIMPORTTIME": "1",
        "PYTHONUNBUFFERED": "1",
    }
    shell = ["bash", "-c", f'exec "$@" {redirection}', "bash", *with_sigint(sigint, command)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            shell, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT
        )
    return Run(process, folder, mark, f"http://127.0.0.1:{port}")
