"""Run Triton and end it when one of its Python stubs dies: `python -m engineroom.triton.watchdog TRITONSERVER …`.

Triton 2.51 does not notice: requests inside a dead stub would wait for ever, and the model stays ready.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

PERIOD = 0.5  # seconds between two looks
STUB = "triton_python_backend_stub"


def model_of(stub: psutil.Process) -> str | None:
    """The model.py that a stub runs; None for another process, and for the stub that Triton runs to see if it can."""
    line = stub.cmdline()
    return line[1] if len(line) > 1 and line[0].endswith(STUB) else None


def dead_stubs(server: int, names: dict[int, str]) -> set[int]:
    """Stubs that ended by themselves: one that Triton ended, it has also waited for. `names` learns who is who."""
    dead = set()
    for process in psutil.Process(server).children(recursive=True):
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                dead |= {process.pid} & names.keys()
            elif model := model_of(process):
                names[process.pid] = model
    return dead


def main(command: list[str]) -> int:
    """The exit status of the server, 1 after the death of a stub."""
    server = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    names: dict[int, str] = {}
    before: set[int] = set()
    while server.poll() is None:
        time.sleep(PERIOD)
        with suppress(psutil.NoSuchProcess):
            now = dead_stubs(server.pid, names)
            if stayed := now & before:
                gone = ", ".join(sorted(names[pid] for pid in stayed))
                print(
                    f"The Python process of {gone} died; its requests are lost. Ending the server.",
                    flush=True,
                )
                server.kill()
                server.wait()
                return 1
            before = now
    return server.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
