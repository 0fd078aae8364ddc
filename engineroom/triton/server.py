"""The Triton server: the one of NVIDIA's wheel here, `launch_triton_server.py`'s command line in NVIDIA's container.

Flags are those of tritonserver 2.51 (`tritonserver --help`).
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from engineroom.kit.diagnose import PAUSED
from engineroom.kit.process import HOST, Server, ServerFailed, free_port, start
from engineroom.triton.deployment import DeploymentError

ENVIRONMENT = Path(__file__).parents[2] / ".venv" / "triton"
BUNDLED = "lib/python{}.{}/site-packages/pytriton/tritonserver".format(*sys.version_info)
NVIDIA = Path("/opt/tritonserver/bin/tritonserver")
STARTS = 3  # at most, if the machine stands still each time
EXIT_SECONDS = 1  # for requests that still run at SIGTERM


@dataclass(frozen=True)
class Triton(AbstractContextManager["Triton"]):
    """A running server: `url` for HTTP, `grpc` as host:port, `metrics` the address of its Prometheus page."""

    server: Server
    grpc: str
    metrics: str

    @property
    def url(self) -> str:
        return self.server.url

    def stop(self) -> None:
        self.server.stop(grace=EXIT_SECONDS + 1.5)

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(
    repository: str | Path, *, name: str = "triton", world_size: int = 1, timeout: float = 240
) -> Triton:
    """Start Triton on free loopback ports and return when every model is ready; the process kit stops it.

    A second call of the same `name` replaces the first server. Raises DeploymentError without a model or a Triton on
    this machine, ServerFailed with the reason and the end of the log. A Triton that died of a pause is started again,
    STARTS times in all: until 25.08 (python_backend's pull request 408) a model's process has one second to show that
    it lives, and when it comes later its start-up arguments have been freed, which ends the server too.
    """
    if not any(Path(repository).glob("*/config.pbtxt")):
        raise DeploymentError(f"{repository} has no model. Give a folder that `render` wrote.")
    grpc, metrics = free_port(), free_port()
    line = [sys.executable, "-m", "engineroom.triton.watchdog"]
    line += command(Path(repository), "{port}", grpc, metrics, world_size)
    server = _start(line, name, timeout)
    return Triton(server, f"{HOST}:{grpc}", f"http://{HOST}:{metrics}/metrics")


def _start(line: list[str], name: str, timeout: float, more: int = STARTS - 1) -> Server:
    try:
        return start(line, name=name, env=environment(), ready="/v2/health/ready", timeout=timeout)
    except ServerFailed as failure:
        if PAUSED not in str(failure) or not more:
            raise
    print(f"{PAUSED} Once more.", flush=True)
    return _start(line, name, timeout, more - 1)


def command(
    repository: Path,
    http: int | str,
    grpc: int,
    metrics: int,
    world_size: int = 1,
    name: str = "tensorrt_llm",
) -> list[str]:
    """One process for each rank of the engine, under mpirun; one rank in the wheel's server needs none.

    Models are loaded and unloaded by request only, so that a version can be rolled out.
    Ranks above 0 load the engine's model only, as launch_triton_server.py has it.
    """
    program = executable()
    if world_size > 1 and program != NVIDIA:
        raise DeploymentError(
            f"world_size {world_size}: several ranks need NVIDIA's container; here it is 1."
        )
    line: list[str] = [] if program != NVIDIA else ["mpirun", "--allow-run-as-root"]
    for rank in range(world_size):
        line += [] if program != NVIDIA else ["-n", "1"]
        line += [str(program), f"--model-repository={repository.absolute()}"]
        line += ["--model-control-mode=explicit", f"--load-model={name if rank else '*'}"]
        line += [f"--http-address={HOST}", f"--grpc-address={HOST}", f"--metrics-address={HOST}"]
        line += [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
        line += ["--disable-auto-complete-config", f"--exit-timeout-secs={EXIT_SECONDS}"]
        line += [f"--backend-config=python,shm-region-prefix-name=engineroom{os.getpid()}_{rank}_"]
        line += [] if program == NVIDIA else [f"--backend-directory={backends(program)}"]
        line += [":"] if program == NVIDIA else []
    return line


def executable() -> Path:
    """NVIDIA's in its container, else the wheel's. Raises DeploymentError with the line that brings it."""
    bundled = ENVIRONMENT / BUNDLED / "bin" / "tritonserver"
    for program in (NVIDIA, bundled):
        if program.is_file():
            return program
    raise DeploymentError("There is no Triton server here. `python3 bootstrap.py --triton` brings it.")


def backends(program: Path) -> Path:
    """The wheel's backends, with the stub of this Python where Triton looks for it."""
    root = program.parents[1]
    stub = root / "backends" / "python" / "triton_python_backend_stub"
    if not stub.exists():
        source = root / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / stub.name
        temporary = stub.with_suffix(f".{os.getpid()}")
        shutil.copy(source, temporary)
        temporary.replace(stub)
    return root / "backends"


def environment() -> dict[str, str]:
    """The stub is an embedded Python: PATH leads it to its environment, LD_LIBRARY_PATH to its own libpython."""
    if executable() == NVIDIA:
        return {}
    paths = {"PATH": str(ENVIRONMENT / "bin"), "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    return {name: ":".join(filter(None, [path, os.environ.get(name)])) for name, path in paths.items()}
