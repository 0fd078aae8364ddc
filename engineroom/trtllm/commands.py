"""Command lines of the real TensorRT-LLM 1.2.1 tools: checked against their flags, not run.

A Python keyword is a flag's name with underscores; True is a bare switch, or "enable" where the tool wants
that word; None leaves a flag out; a list gives several words.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engineroom.kit import probe
from engineroom.trtllm.flags import FlagError, check, image, tools, version
from engineroom.trtllm.values import Value

MODES = ("throughput", "latency")


@dataclass(frozen=True)
class Command:
    """A line that passed the check: ``str()`` for a shell, ``argv`` for subprocess.

    ``where`` is the program, or its file in NVIDIA's container; ``launcher`` what starts it (mpirun, docker).
    """

    argv: tuple[str, ...]
    where: str
    launcher: tuple[str, ...] = ()

    def available(self) -> bool:
        """True when TensorRT-LLM can run here and this program is there."""
        return here() is not None and (os.path.exists(self.where) or shutil.which(self.where) is not None)

    def __str__(self) -> str:
        if len(shlex.join(self.argv)) <= 80:
            return shlex.join(self.argv)
        lines, own = [shlex.join(self.launcher)] if self.launcher else [], self.argv[len(self.launcher) :]
        starts = [i for i, word in enumerate(own) if i == 0 or word.startswith("--") or word in MODES]
        lines += [shlex.join(own[i:j]) for i, j in zip(starts, [*starts[1:], None], strict=True)]
        return " \\\n    ".join(lines)

    def _repr_markdown_(self) -> str:
        note = "The tool is on this machine." if self.available() else "The tool is not on this machine."
        return (
            f"```bash\n{self}\n```\n*Flags checked against a transcription of the source of TensorRT-LLM "
            f"{version()}, never run by us. {note}*"
        )


def here() -> str | None:
    """The version of TensorRT-LLM that can run here, "unknown" if in another Python, None without one."""
    versions = probe.versions()
    if "trtllm" in probe.engines(versions, probe.gpus(), probe.compiler()):
        return versions.get("tensorrt-llm", "unknown")
    return None


def convert(family: Literal["llama", "qwen"] = "llama", **flags: object) -> Command:
    """convert_checkpoint.py of a model family: Hugging Face weights to a TensorRT-LLM checkpoint.

    Like every builder here, raises FlagError (a ValueError) with all that is wrong.
    """
    if f"convert {family}" not in tools():
        raise FlagError(
            "convert_checkpoint.py", [f"the families known here are llama and qwen, not {family!r}."]
        )
    return command(f"convert {family}", flags)


def quantize(**flags: object) -> Command:
    """quantize.py: a calibrated, quantised TensorRT-LLM checkpoint (FP8, INT4 AWQ, INT8 SmoothQuant ...)."""
    return command("quantize", flags)


def build(**flags: object) -> Command:
    """trtllm-build: from a checkpoint to an engine for this GPU type and this TensorRT."""
    return command("build", flags)


def run(*, ranks: int = 1, **flags: object) -> Command:
    """run.py: generate with an engine; ``ranks`` is tp x pp of the engine, above 1 under mpirun."""
    launcher = ["mpirun", "-n", str(ranks), "--allow-run-as-root"] if ranks > 1 else []
    return command("run", flags, launcher=launcher)


def serve(model: str | Path, **flags: object) -> Command:
    """trtllm-serve: an OpenAI server for a Hugging Face model, or for an engine with backend="tensorrt"."""
    return command("serve", flags, model=str(model))


def bench(mode: Literal["throughput", "latency"], model: str, **flags: object) -> Command:
    """trtllm-bench with ``model``, its Hugging Face name; an engine goes into ``engine_dir``."""
    if mode not in MODES:
        raise FlagError("trtllm-bench", [f"the modes known here are {' and '.join(MODES)}, not {mode!r}."])
    group = {name: flags.pop(name) for name in list(flags) if tools()["bench"].find(name)}
    return command(f"bench {mode}", flags, group={"model": model, **group})


def launch(**flags: object) -> Command:
    """launch_triton_server.py: tritonserver with one rank per GPU; ``world_size`` is the engine's tp x pp."""
    return command("launch", flags)


def container(inner: Command, folder: str | Path = ".", *, ports: Sequence[int] = ()) -> Command:
    """The same in NVIDIA's container that has this version, with ``folder`` as /work and ``ports`` published.

    Raises FlagError for a server with ports that would listen to the container's own localhost only.
    """
    if ports and inner.where == "trtllm-serve" and "0.0.0.0" not in inner.argv:
        raise FlagError(
            "trtllm-serve", ["with ports needs --host 0.0.0.0: localhost is the container's own."]
        )
    line = [
        "docker",
        "run",
        "--rm",
        "--gpus",
        "all",
        "--shm-size",
        "2g",
        "-v",
        f"{Path(folder).absolute()}:/work",
    ]
    line += ["-w", "/work", *(word for port in ports for word in ("-p", f"{port}:{port}")), image()]
    return Command((*line, *inner.argv), inner.where, (*line, *inner.launcher))


def command(
    name: str,
    flags: Mapping[str, object],
    *,
    model: str | None = None,
    group: Mapping[str, object] | None = None,
    launcher: Sequence[str] = (),
) -> Command:
    """The line of the tool ``name`` (see ``flags.tools``). Raises FlagError.

    ``model`` is the positional of serve, ``group`` what stands before the subcommand of bench.
    """
    tool = tools()[name]
    problems = _engine_without_backend(model, flags) if model is not None else []
    words: list[str] = [model] if model is not None else []
    for part, args in (("bench", group), (name, flags)):
        try:
            words += [] if args is None else line(part, check(part, args))
        except FlagError as error:
            problems = error.problems + problems
        if args is group and group is not None:
            words.append(name.split()[1])
    if tool.positional and (model is None or model.startswith("-")):
        problems.insert(0, f"{tool.positional} is required: the first argument, without a flag.")
    if problems:
        raise FlagError(tool.name, problems)
    where = next(word for word in tool.program if word != "python3")
    return Command((*launcher, *tool.program, *words), where, tuple(launcher))


def line(name: str, args: Mapping[str, Value]) -> list[str]:
    """Checked arguments as words of a command line."""
    words: list[str] = []
    for flag_name, value in args.items():
        flag = tools()[name].flags[flag_name]
        for one in value if flag.repeat else [value]:
            if flag.type == "switch":
                words.append(flag_name if one else str(flag.off))
            elif flag.many:
                words += [flag_name, *map(str, one)]
            elif flag.type in ("str", "path") and str(one).startswith("-"):
                words.append(f"{flag_name}={one}")
            else:
                words += [flag_name, str(one)]
    return words


def _engine_without_backend(model: str, flags: Mapping[str, object]) -> list[str]:
    """An engine directory on this machine, served by a backend that cannot read it."""
    try:
        config = json.loads((Path(model) / "config.json").read_text())
    except (OSError, ValueError):
        return []
    given = flags.get("backend", flags.get("--backend"))
    if "build_config" not in config or given in ("tensorrt", "trt"):
        return []
    return [f"{model} is an engine: it needs --backend tensorrt; the default is pytorch since 1.0."]
