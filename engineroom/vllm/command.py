"""`vllm serve`: its command line for this machine, and the server that it starts.

Flags and environment variables are those of vLLM 0.32 (`vllm serve --help=all`, vllm/envs.py).
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from engineroom.kit.errors import UserError
from engineroom.kit.machine import Gpu, Machine, machine
from engineroom.kit.process import Server, start
from engineroom.vllm.model import dtype, locate

CPU_KV_CACHE_GIB = 1
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_gib=80, compute_capability="9.0", driver="")


class VllmMissing(UserError, FileNotFoundError):
    """There is no program vllm in this environment."""


def command(model: str = "course", *, target: Machine | None = None, **flags: object) -> list[str]:
    """The command line of `vllm serve` for the machine ``target``, or for this one, as a list of arguments.

    ``flags`` are vLLM's own with underscores: ``max_num_seqs=4`` becomes ``--max-num-seqs 4``, True becomes a flag
    without a value, and None removes a default of this function. The port is the placeholder "{port}", which the
    process kit replaces.
    """
    target = target or machine()
    defaults: dict[str, object] = {
        "served_model_name": model,
        "host": "127.0.0.1",
        "port": "{port}",
        "dtype": dtype(target),
        "max_model_len": 2048,
        "max_num_seqs": 16,
    }
    if not target.gpus:
        defaults["enforce_eager"] = True  # compiling takes a minute and gains little on a CPU
    line = [executable(), "serve", locate(model)]
    for name, value in (defaults | flags).items():
        if value is None or value is False:
            continue
        line.append(f"--{name.replace('_', '-')}")
        if value is not True:
            line.append(str(value))
    return line


def on_h100(model: str, **flags: object) -> str:
    """The shell command for ``model`` on one H100, whatever this machine is: to read and to copy."""
    line = command(model, target=machine().model_copy(update={"gpus": [H100]}), port=8000, **flags)
    return shlex.join(["vllm", *line[1:]])


def executable() -> str:
    """`vllm` of this Python environment, or else the one on the PATH. Raises VllmMissing."""
    beside_python = Path(sys.executable).with_name("vllm")
    path = str(beside_python) if beside_python.exists() else shutil.which("vllm")
    if not path:
        raise VllmMissing("There is no command vllm. `make lab` installs it; in a container, add it to PATH.")
    return path


def environment(model: str, target: Machine) -> dict[str, str]:
    """Variables for the server: no telemetry, no hub for a local model, and on a CPU the KV cache's size in GiB."""
    settings = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if Path(locate(model)).is_dir():
        settings["HF_HUB_OFFLINE"] = "1"
    if not target.gpus:
        settings["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
    return settings


def trace_environment(flags: Mapping[str, object]) -> dict[str, str]:
    """Variables for ``otlp_traces_endpoint``: OTLP over HTTP instead of gRPC, a name, an export twice a second."""
    if flags.get("otlp_traces_endpoint") is None:
        return {}
    return {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "vllm",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }


def serve(
    model: str = "course", *, name: str = "vllm", timeout: float = 300, env: dict[str, str] | None = None,
    **flags: object,
) -> Server:  # fmt: skip
    """Start vLLM on ``model`` and return when it answers; ``flags`` as in ``command``.

    The process kit stops the server together with this process, whatever happens. A second call with the same
    ``name`` replaces the first server. Raises ModelNotFound, VllmMissing, and ServerFailed with the reason and the end
    of the log.
    """
    target = machine()
    settings = environment(model, target) | trace_environment(flags) | (env or {})
    return start(command(model, target=target, **flags), name=name, env=settings, timeout=timeout)
