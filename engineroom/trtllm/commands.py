"""Command lines of TensorRT-LLM 1.2.1's tools: checked against the flags of these tools, not run.

A Python keyword is a flag's name with underscores. True is a switch, or "enable" where the tool wants that word; None
leaves a flag out; a list gives several words.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from engineroom.kit import probe
from engineroom.trtllm.flags import FlagError, check, image, tools, version
from engineroom.trtllm.values import FlagValue, ShellWord, expands

BENCH_MODES = ("throughput", "latency")
ALL_INTERFACES = "0.0.0.0"  # noqa: S104 (of a container, where docker decides which ports are reachable)


@dataclass(frozen=True)
class Command:
    """A command line that passed the check: ``str()`` for a shell, ``argv`` for subprocess.

    ``executable`` is the program, or its file in NVIDIA's container; ``launcher`` are the words before it (mpirun,
    docker).
    """

    argv: tuple[str, ...]
    executable: str
    launcher: tuple[str, ...] = ()

    def available(self) -> bool:
        """True when TensorRT-LLM can run on this machine and this program is installed."""
        if installed_version() is None:
            return False
        return os.path.exists(self.executable) or shutil.which(self.executable) is not None

    def __str__(self) -> str:
        if len(_join(self.argv)) <= 80:
            return _join(self.argv)
        words = self.argv[len(self.launcher) :]
        starts = [i for i, word in enumerate(words) if i == 0 or word.startswith("--") or word in BENCH_MODES]
        lines = [_join(self.launcher)] if self.launcher else []
        lines += [_join(words[start:end]) for start, end in pairwise([*starts, len(words)])]
        return " \\\n    ".join(lines)

    def _repr_markdown_(self) -> str:
        note = "The tool is on this machine." if self.available() else "The tool is not on this machine."
        return (
            f"```bash\n{self}\n```\n*Flags checked against a transcription of the source of TensorRT-LLM "
            f"{version()}, never run by us. {note}*"
        )


def _join(words: Sequence[str]) -> str:
    """The words for a shell; those that came from a shell's text stay as they were written."""
    return " ".join(word.source if isinstance(word, ShellWord) else shlex.quote(word) for word in words)


def installed_version() -> str | None:
    """The version of TensorRT-LLM that can run on this machine.

    None when there is none, and "unknown" when it belongs to another Python environment.
    """
    versions = probe.versions()
    if "trtllm" in probe.engines(versions, probe.gpus(), probe.compiler()):
        return versions.get("tensorrt-llm", "unknown")
    return None


def convert(family: Literal["llama", "qwen"] = "llama", **flags: object) -> Command:
    """convert_checkpoint.py of a model family: from Hugging Face weights to a TensorRT-LLM checkpoint.

    Like the other functions for a tool, it raises FlagError with every problem.
    """
    if f"convert {family}" not in tools():
        problem = f"the families known here are llama and qwen, not {family!r}."
        raise FlagError("convert_checkpoint.py", [problem])
    return command(f"convert {family}", flags)


def quantize(**flags: object) -> Command:
    """quantize.py: a calibrated and quantised TensorRT-LLM checkpoint (FP8, INT4 AWQ, INT8 SmoothQuant …)."""
    return command("quantize", flags)


def build(**flags: object) -> Command:
    """trtllm-build: from a checkpoint to an engine for this type of GPU and this version of TensorRT."""
    return command("build", flags)


def run(*, ranks: int = 1, **flags: object) -> Command:
    """run.py: generate with an engine. ``ranks`` is the engine's tp × pp; mpirun starts more than one."""
    launcher = ["mpirun", "-n", str(ranks), "--allow-run-as-root"] if ranks > 1 else []
    return command("run", flags, launcher=launcher)


def serve(model: str | Path, **flags: object) -> Command:
    """trtllm-serve: an OpenAI server for a Hugging Face model, or for an engine with backend="tensorrt"."""
    return command("serve", flags, model=str(model))


def bench(mode: Literal["throughput", "latency"], model: str, **flags: object) -> Command:
    """trtllm-bench for ``model``, a Hugging Face name; ``engine_dir`` is its engine."""
    if mode not in BENCH_MODES:
        raise FlagError(
            "trtllm-bench", [f"the modes known here are {' and '.join(BENCH_MODES)}, not {mode!r}."]
        )
    group_flags = {name: value for name, value in flags.items() if tools()["bench"].find(name)}
    mode_flags = {name: value for name, value in flags.items() if name not in group_flags}
    return command(f"bench {mode}", mode_flags, group_flags={"model": model, **group_flags})


def launch(**flags: object) -> Command:
    """launch_triton_server.py: tritonserver with one rank per GPU. ``world_size`` is the engine's tp × pp."""
    return command("launch", flags)


def container(inner: Command, folder: str | Path = ".", *, ports: Sequence[int] = ()) -> Command:
    """``inner`` in NVIDIA's container that has this version, with ``folder`` as /work and ``ports`` published.

    Raises FlagError for a server with ports that would listen on the container's own localhost only.
    """
    if ports and inner.executable == "trtllm-serve" and ALL_INTERFACES not in inner.argv:
        problem = "published ports need --host 0.0.0.0: localhost is the container's own."
        raise FlagError("trtllm-serve", [problem])
    docker = ["docker", "run", "--rm", "--gpus", "all", "--shm-size", "2g"]
    docker += ["-v", f"{Path(folder).absolute()}:/work", "-w", "/work"]
    for port in ports:
        docker += ["-p", f"{port}:{port}"]
    docker.append(image())
    return Command((*docker, *inner.argv), inner.executable, (*docker, *inner.launcher))


def command(
    name: str,
    flags: Mapping[str, object],
    *,
    model: str | None = None,
    group_flags: Mapping[str, object] | None = None,
    launcher: Sequence[str] = (),
    complete: bool = True,
) -> Command:
    """The command line of the tool ``name`` (see ``flags.tools``). Raises FlagError with every problem.

    ``model`` is the positional argument of trtllm-serve; ``group_flags`` stand before the subcommand of trtllm-bench.
    Nothing is missing when the flags are not ``complete``, because the shell adds more words.
    """
    tool = tools()[name]
    problems: list[str] = []
    if tool.positional and complete and (model is None or model.startswith("-")):
        problems.append(f"{tool.positional} is required: the first argument, without a flag.")
    words: list[str] = [] if model is None else [model]
    if group_flags is not None:
        words += [*_checked_words("bench", group_flags, problems, complete), name.split()[1]]
    words += _checked_words(name, flags, problems, complete)
    if model is not None:
        problems += _engine_without_backend(model, flags)
    if problems:
        raise FlagError(tool.name, problems)
    return Command((*launcher, *tool.program, *words), tool.executable, tuple(launcher))


def _checked_words(name: str, flags: Mapping[str, object], problems: list[str], complete: bool) -> list[str]:
    """The words of the checked flags. What is wrong with them is added to ``problems``."""
    try:
        return flag_words(name, check(name, flags, complete=complete))
    except FlagError as error:
        problems += error.problems
        return []


def flag_words(name: str, values: Mapping[str, FlagValue]) -> list[str]:
    """Checked values of the tool ``name`` as words of a command line."""
    words: list[str] = []
    for flag_name, value in values.items():
        flag = tools()[name].flags[flag_name]
        for occurrence in value if isinstance(value, list) and flag.repeat else [value]:
            if flag.type == "switch":
                words.append(flag_name if occurrence else str(flag.off))
            elif isinstance(occurrence, list):
                words += [flag_name, *map(str, occurrence)]
            elif flag.type in ("str", "path") and str(occurrence).startswith("-"):
                words.append(f"{flag_name}={occurrence}")
            else:
                words += [flag_name, str(occurrence)]
    return words


def _engine_without_backend(model: str, flags: Mapping[str, object]) -> list[str]:
    """The problem of an engine directory on this machine that is served by a backend which cannot read it."""
    if expands(model):
        return []  # its value is not known
    try:
        config = json.loads((Path(model) / "config.json").read_text())
    except (OSError, ValueError):
        return []
    backend = flags.get("backend", flags.get("--backend"))
    if "build_config" not in config or backend in ("tensorrt", "trt") or expands(backend):
        return []
    return [f"{model} is an engine: it needs --backend tensorrt; the default is pytorch since 1.0."]
