"""Run Triton and end it when one of its Python stubs dies: `python -m engineroom.triton.watchdog TRITONSERVER …`.

Triton 2.51 does not notice such a death: the model stays ready, and the requests inside the stub would wait forever.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil

PERIOD = 0.5  # seconds between two checks
STUB = "triton_python_backend_stub"


def model_file(process: psutil.Process) -> str | None:
    """The model.py that a stub runs. None for another process, and for the stub that Triton starts as a trial."""
    command = process.cmdline()
    return command[1] if len(command) > 1 and command[0].endswith(STUB) else None


def dead_stubs(server_pid: int, model_files: dict[int, str]) -> set[int]:
    """Process ids of the stubs that died by themselves, which makes them zombies; Triton waits for those that it ends.

    `model_files` has the model.py of each stub by its process id. Stubs that are new are added to it.
    """
    dead = set()
    for process in psutil.Process(server_pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                if process.pid in model_files:
                    dead.add(process.pid)
            elif path := model_file(process):
                model_files[process.pid] = path
    return dead


def main(command: list[str]) -> int:
    """Run the server. Returns its exit status, or 1 after the death of a stub."""
    server = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    model_files: dict[int, str] = {}
    dead_before: set[int] = set()
    while server.poll() is None:
        time.sleep(PERIOD)
        with suppress(psutil.NoSuchProcess):
            dead_now = dead_stubs(server.pid, model_files)
            # A stub that Triton ends is a zombie for a moment; one that is still there after a period died by itself.
            died = dead_now & dead_before
            if died:
                paths = ", ".join(sorted(model_files[pid] for pid in died))
                print(
                    f"The Python process of {paths} died; its requests are lost. Ending the server.",
                    flush=True,
                )
                server.kill()
                server.wait()
                return 1
            dead_before = dead_now
    return server.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
