#!/usr/bin/env python3
"""Set up the course's environment: `python3 bootstrap.py`, which `make` calls first.

It needs Python, a C++ compiler and a network, and uses the standard library only. Every step may be interrupted and
repeated. When everything is in place it returns within milliseconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from tools.setup.environment import environment
from tools.setup.steps import ROOT, SPARE_HOME, VENV, SetupError, step
from tools.setup.uv import find_uv

PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".engineroom"
PYTHON_VERSION = "3.11"  # what course.lock was resolved for
PACKAGES = f"lib/python{PYTHON_VERSION}/site-packages"
FREE_GB = 5
INPUTS = (
    "bootstrap.py",
    "tools/setup/environment.py",
    "tools/setup/steps.py",
    "tools/setup/uv.py",
    "pyproject.toml",
    "requirements/course.lock",
    "requirements/uv.lock",
    "requirements/vllm-companion/pyproject.toml",
    "requirements/vllm-companion/vllm_companion.py",
)
# separate environments in .venv/NAME that share the course's torch; the option is --NAME
EXTRA = ("check", "quantize", "kernels", "triton", "openvino", "aiperf", "gateway", "clients")
# uv installs sources only. Importing once writes byte code, which halves every later start of a server.
WARM_UP = (
    "vllm.entrypoints.cli.main, vllm.entrypoints.openai.api_server, vllm.v1.worker.cpu_worker",
    "jupyterlab.labapp, ipykernel.kernelapp, nbconvert, papermill, matplotlib.pyplot, pandas",
)


# The command `engineroom`. A line #! with the path of Python allows neither spaces in it nor more than 255 bytes.
COMMAND = """\
#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python" "$0" "$@"
' '''
from tools.__main__ import main

if __name__ == "__main__":
    main()
"""


def main() -> int:
    """Set up what the command line asks for; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not in UTF-8
    try:
        with one_at_a_time():
            if not up_to_date():
                set_up()
            for name in EXTRA:
                if f"--{name}" in sys.argv[1:]:
                    install_environment(name)
        if "--browser" in sys.argv[1:]:
            install_browser()
        if "--prometheus" in sys.argv[1:]:
            install_prometheus()
    except SetupError as error:
        print(f"\nSet-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again: it continues where it stopped.", file=sys.stderr)
        return 130
    return 0


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Make a second `make` wait until the first has finished its set-up."""
    try:
        VENV.mkdir(exist_ok=True)
        lock = (VENV / ".engineroom-lock").open("w")
    except OSError as error:
        raise SetupError(
            f"{ROOT} cannot be written to ({error.strerror}).\n  Copy the course to a folder of your own."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is under way in this folder; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Hash the folder's path and all files that decide what is installed."""
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        digest.update(name.encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()


def up_to_date() -> bool:
    """Return True when the environment was installed from the files as they are now."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()


def set_up() -> None:
    """Install the course's environment."""
    start = time.monotonic()
    message = (
        "updating the set-up." if PYTHON.exists() else "first set-up: one to two minutes, about 3 GB of disk."
    )
    print(f"Engine Room: {message}", flush=True)
    check_system()
    STAMP.unlink(missing_ok=True)
    uv = find_uv()
    if not PYTHON.exists():
        command = [*uv, "venv", "--allow-existing", "--no-project", "--python", PYTHON_VERSION, str(VENV)]
        hint = (
            f"Python {PYTHON_VERSION} is neither installed here, nor could it be fetched. Install it, then repeat.\n"
            f"  sudo apt-get install python{PYTHON_VERSION} python{PYTHON_VERSION}-venv"
        )
        step("Python environment", command, hint)
    install = [*uv, "pip", "install", "--python", str(PYTHON), "--no-deps"]
    sync = [*uv, "pip", "sync", "--python", str(PYTHON), "--require-hashes", *torch_source()]
    step(
        "packages (vLLM, PyTorch, JupyterLab, …), each checked by its hash",
        [*sync, "requirements/course.lock"],
    )
    projects = ["./requirements/vllm-companion", "--editable", "."]
    step("the course itself", [*install, "--no-build-isolation", *projects])
    install_course()
    warm_up()
    temporary = STAMP.with_suffix(".new")
    temporary.write_text(fingerprint())
    temporary.replace(STAMP)
    print(f"Set up in {time.monotonic() - start:.0f} s.", flush=True)


def install_environment(name: str) -> None:
    """Install `.venv/NAME` from requirements/NAME.lock. It imports torch and the checkout from the course."""
    folder = VENV / name
    lock = f"requirements/{name}.lock"
    stamp = folder / ".engineroom"
    expected = fingerprint() + hashlib.sha256((ROOT / lock).read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == expected:
        return
    stamp.unlink(missing_ok=True)
    uv = find_uv()
    python = str(folder / "bin" / "python")
    step(f"environment {name}", [*uv, "venv", "--allow-existing", "--python", str(PYTHON), str(folder)])
    step("", [*uv, "pip", "sync", "--python", python, "--require-hashes", lock])
    (folder / PACKAGES / "course.pth").write_text(f"{VENV / PACKAGES}\n{ROOT}\n", encoding="utf-8")
    stamp.write_text(expected)


def install_course() -> None:
    """Put the checkout on the path of the course's Python, and its command `engineroom` beside that Python.

    The distribution `engineroom` contains the library alone; lessons, tools and this command belong to the checkout.
    """
    (VENV / PACKAGES / "course.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    command = PYTHON.with_name("engineroom")
    command.write_text(COMMAND)
    command.chmod(0o755)


def check_system() -> None:
    """Raise SetupError where the course cannot run: another system, no compiler, too little disk."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"this is {sys.platform} on {platform.machine()}; the course runs on Linux on x86-64.\n"
            "  Use the container (see Dockerfile), WSL 2, or a cloud machine."
        )
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))):
        raise SetupError(
            "no C++ compiler was found; engines are compiled with it.\n  sudo apt-get install g++"
        )
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < FREE_GB and not PYTHON.exists():
        raise SetupError(
            f"{free:.1f} GB of disk are free in {ROOT}; set-up needs {FREE_GB}. Free some space and repeat."
        )


def torch_source() -> list[str]:
    """Return uv's options for torch: a local folder of wheels if the environment names one, else PyTorch's index."""
    folder = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    return ["--find-links", folder] if folder else ["--torch-backend", "cpu"]


def warm_up() -> None:
    """Import large packages once, so that Python compiles them."""
    print("  … warm-up, so that servers start faster", flush=True)
    options = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
        "encoding": "utf-8",
        "errors": "replace",
    }
    processes = [
        subprocess.Popen(
            [PYTHON, "-c", f"import {modules}"], cwd=ROOT, env=environment(SPARE_HOME), **options
        )
        for modules in WARM_UP
    ]
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            hint = "\nInstall that library: sudo apt-get install libnuma1" if "libnuma" in errors else ""
            raise SetupError(
                "a package does not import:\n" + "\n".join(errors.strip().splitlines()[-8:]) + hint
            )


def install_browser() -> None:
    """Install Chromium for the browser tests unless there is one: Debian's package as root, else Playwright's."""
    if shutil.which("chromium") or shutil.which("google-chrome"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        step("Chromium, for the browser tests", ["apt-get", "update", "-q"])
        step("", ["apt-get", "install", "-qy", "--no-install-recommends", "chromium"])
    else:
        hint = "Install one yourself, then repeat.\n  sudo apt-get install chromium"
        step(
            "Chromium, for the browser tests", [str(PYTHON), "-m", "playwright", "install", "chromium"], hint
        )


def install_prometheus() -> None:
    """Install Prometheus and promtool for the dashboard's tests if they are missing: Debian's, in .venv/prometheus."""
    folder = VENV / "prometheus"
    if shutil.which("prometheus") or (folder / "usr/bin/promtool").exists():
        return
    hint = "Unpack a release of Prometheus so that prometheus and promtool are on the PATH, then repeat."
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        step("", ["apt-get", "update", "-q"], hint)
    download = f"cd '{folder}' && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb"
    step("Prometheus, for the dashboard's tests", ["sh", "-c", download], hint)


if __name__ == "__main__":
    sys.exit(main())
