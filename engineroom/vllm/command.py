"""`vllm serve`: its command line for this machine, and the server started from it.

Flags and environment variables are those of vLLM 0.32 (`vllm serve --help=all`, vllm/envs.py).
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from engineroom.kit.machine import Gpu, Machine, machine
from engineroom.kit.process import Server, start
from engineroom.vllm.model import dtype, locate

CPU_KV_CACHE_GIB = 1
H100 = Gpu(name="NVIDIA H100 80GB HBM3", memory_gib=80, compute_capability="9.0", driver="")


def command(model: str = "course", *, here: Machine | None = None, **flags: object) -> list[str]:
    """The command line of `vllm serve` for this machine, as a list of arguments.

    ``flags`` are vLLM's own with underscores: ``max_num_seqs=4`` becomes ``--max-num-seqs 4``, True a bare flag,
    None leaves a default of ours out. The port is the placeholder "{port}", which the process kit fills in.
    """
    here = here or machine()
    ours = {"served_model_name": model, "host": "127.0.0.1", "port": "{port}", "dtype": dtype(here)}
    ours |= {"max_model_len": 2048, "max_num_seqs": 16}
    if not here.gpus:
        ours["enforce_eager"] = True  # compiling costs a minute and gains little on a CPU
    line = [executable(), "serve", locate(model)]
    for name, value in (ours | flags).items():
        if value is None or value is False:
            continue
        line += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return line


def on_h100(model: str, **flags: object) -> str:
    """The shell command for ``model`` on one H100, whatever this machine is; for reading and for copying."""
    line = command(model, here=machine().model_copy(update={"gpus": [H100]}), port=8000, **flags)
    return shlex.join(["vllm", *line[1:]])


def executable() -> str:
    """`vllm` of this Python environment, else the one on the PATH. Raises FileNotFoundError."""
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.exists() else shutil.which("vllm")
    if not found:
        raise FileNotFoundError(
            "There is no command vllm. `make lab` installs it; in a container, add it to PATH."
        )
    return found


def environment(model: str, here: Machine) -> dict[str, str]:
    """No telemetry; no hub for a local model; on a CPU, GiB of memory for the KV cache."""
    settings = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if Path(locate(model)).is_dir():
        settings["HF_HUB_OFFLINE"] = "1"
    if not here.gpus:
        settings["VLLM_CPU_KVCACHE_SPACE"] = str(CPU_KV_CACHE_GIB)
    return settings


def serve(
    model: str = "course", *, timeout: float = 300, env: dict[str, str] | None = None, **flags: object
) -> Server:
    """Start vLLM on ``model`` and return when it answers; ``flags`` as in ``command``.

    The process kit stops it with this kernel, whatever happens. A second call replaces the first server. Raises
    ServerFailed with the reason and the end of the log.
    """
    here = machine()
    settings = environment(model, here) | (env or {})
    return start(command(model, here=here, **flags), name="vllm", env=settings, timeout=timeout)
