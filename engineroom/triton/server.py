"""Start a Triton server: the one in NVIDIA's wheel or, inside NVIDIA's container, the one installed there.

In the container the command line is that of `launch_triton_server.py`. The flags are those of tritonserver 2.51
(`tritonserver --help`).
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engineroom.kit.diagnose import PAUSED
from engineroom.kit.process import HOST, Server, ServerFailed, free_ports, start
from engineroom.tracing.switch import ENVIRONMENT_VARIABLE, check_endpoint
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.render import CONFIG

ENVIRONMENT = Path(__file__).parents[2] / ".venv" / "triton"
BUNDLED = "lib/python{}.{}/site-packages/pytriton/tritonserver".format(*sys.version_info)
NVIDIA = Path("/opt/tritonserver/bin/tritonserver")
MODEL = "tensorrt_llm"  # the model with the engine
MAX_STARTS = 3
# Calls to other models that one Python model can have at a time: for tensorrt_llm_bls, its requests and their `stop`s.
# A request holds a thread until the first response; with python_backend's default, 32, `stop` would wait for a thread.
BLS_CALLS = 128
EXIT_SECONDS = 1  # seconds that running requests have after SIGTERM


@dataclass(frozen=True)
class Triton(AbstractContextManager["Triton"]):
    """A running server: `url` is for HTTP, `grpc` is host:port, `metrics` is the address of its Prometheus page."""

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
    repository: str | Path, *, name: str = "triton", world_size: int = 1, timeout: float = 240,
    otlp_traces_endpoint: str | None = None,
) -> Triton:  # fmt: skip
    """Start Triton on free loopback ports and return when every model is ready; the process kit stops it.

    A second call with the same `name` replaces the first server. Raises DeploymentError where the repository has no
    model or this machine no Triton, and ServerFailed with the reason and the end of the log.

    With `otlp_traces_endpoint`, Triton and the engine in it send OpenTelemetry spans there. Raises TracingError.
    """
    if not any(Path(repository).glob(f"*/{CONFIG}")):
        raise DeploymentError(
            f"{repository} has no model. Give a folder that `engineroom triton render` wrote."
        )
    http_port, grpc_port, metrics_port = free_ports(3)
    command = [sys.executable, "-m", "engineroom.triton.watchdog"]
    command += server_command(
        Path(repository), "{port}", grpc_port, metrics_port, world_size, otlp_traces_endpoint
    )
    variables = {ENVIRONMENT_VARIABLE: otlp_traces_endpoint} if otlp_traces_endpoint else {}
    server = start_with_retries(command, name, http_port, timeout, variables)
    return Triton(server, f"{HOST}:{grpc_port}", f"http://{HOST}:{metrics_port}/metrics")


def start_with_retries(
    command: list[str], name: str, port: int, timeout: float, variables: Mapping[str, str]
) -> Server:
    """Start a server, up to MAX_STARTS times as long as it fails because the machine paused.

    Before 25.08 (python_backend's pull request 408) a model's process has one second to report that it is alive. If it
    takes longer, its start-up arguments have been freed, and the server dies too.
    """
    env = {**environment(), **variables}
    start_once = partial(
        start, command, name=name, env=env, ready="/v2/health/ready", timeout=timeout, port=port
    )
    for _ in range(MAX_STARTS - 1):
        try:
            return start_once()
        except ServerFailed as failure:
            if PAUSED not in str(failure):
                raise
        print(f"{PAUSED} Trying again.", flush=True)
    return start_once()


def server_command(
    repository: Path, http_port: int | str, grpc_port: int, metrics_port: int, world_size: int = 1,
    otlp_traces_endpoint: str | None = None,
) -> list[str]:  # fmt: skip
    """The command line: in NVIDIA's container mpirun with one server for each rank, elsewhere the wheel's server.

    As in launch_triton_server.py, ranks above 0 load only the model with the engine. Models are loaded and unloaded
    only on request (explicit model control), so that a version can be rolled out.
    """
    program = executable()
    if program != NVIDIA and world_size > 1:
        raise DeploymentError(f"world_size {world_size}: several ranks need NVIDIA's container. Use 1 here.")
    common = [
        f"--model-repository={repository.absolute()}",
        "--model-control-mode=explicit",
        *(f"--{protocol}-address={HOST}" for protocol in ("http", "grpc", "metrics")),
        f"--http-port={http_port}",
        f"--grpc-port={grpc_port}",
        f"--metrics-port={metrics_port}",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={EXIT_SECONDS}",
        *trace_flags(otlp_traces_endpoint),
    ]
    if program != NVIDIA:
        return [str(program), *common, *rank_flags(0), f"--backend-directory={backend_directory(program)}"]
    command = ["mpirun", "--allow-run-as-root"]
    for rank in range(world_size):
        command += ["-n", "1", str(program), *common, *rank_flags(rank), ":"]
    return command


def rank_flags(rank: int) -> list[str]:
    return [
        f"--load-model={MODEL if rank else '*'}",
        f"--backend-config=python,shm-region-prefix-name=engineroom{os.getpid()}_{rank}_",
        f"--backend-config=python,thread-pool-size={BLS_CALLS}",
    ]


def trace_flags(otlp_traces_endpoint: str | None) -> list[str]:
    """Trace every request with OpenTelemetry. Raises TracingError for an address that is no HTTP URL with a path."""
    if otlp_traces_endpoint is None:
        return []
    check_endpoint(otlp_traces_endpoint)
    settings = (
        "mode=opentelemetry",
        "level=TIMESTAMPS",
        "rate=1",
        f"opentelemetry,url={otlp_traces_endpoint}",
        "opentelemetry,resource=service.name=triton",
        "opentelemetry,bsp_schedule_delay=500",  # milliseconds
    )
    return [f"--trace-config={setting}" for setting in settings]


def executable() -> Path:
    """NVIDIA's server in its container, else the wheel's. Raises DeploymentError with the command that installs it."""
    bundled = ENVIRONMENT / BUNDLED / "bin" / "tritonserver"
    for program in (NVIDIA, bundled):
        if program.is_file():
            return program
    raise DeploymentError("There is no Triton server here. Install it with `python3 bootstrap.py --triton`.")


def backend_directory(program: Path) -> Path:
    """The wheel's backends. The stub of this Python version is copied to where Triton looks for it."""
    root = program.parents[1]
    stub = root / "backends" / "python" / "triton_python_backend_stub"
    if not stub.exists():
        source = root / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / stub.name
        temporary = stub.with_suffix(f".{os.getpid()}")
        shutil.copy(source, temporary)
        temporary.replace(stub)
    return root / "backends"


def environment() -> dict[str, str]:
    """Variables for the Python that Triton's stub embeds: PATH has its environment, LD_LIBRARY_PATH its libpython."""
    if executable() == NVIDIA:
        return {}
    paths = {"PATH": str(ENVIRONMENT / "bin"), "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))}
    return {name: f"{path}:{os.environ.get(name, '')}".rstrip(":") for name, path in paths.items()}
