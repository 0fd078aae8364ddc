#!/usr/bin/env python3
"""Sets the course's environment up: `python3 bootstrap.py` (what `make` calls first).

Needs Python, a C++ compiler and a network; standard library only, as nothing else is there yet.
Every step may be interrupted and run again. When all is in place it returns within milliseconds.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".engineroom"
PYTHON_VERSION = "3.11"  # what course.lock was resolved for
PACKAGES = f"lib/python{PYTHON_VERSION}/site-packages"
FREE_GB = 5
INPUTS = (
    "bootstrap.py",
    "pyproject.toml",
    "requirements/course.lock",
    "requirements/uv.lock",
    "requirements/vllm-companion/pyproject.toml",
    "requirements/vllm-companion/vllm_companion.py",
)
# environments of their own in .venv/NAME, with the course's torch: --NAME
EXTRA = ("check", "quantize", "kernels", "triton", "openvino", "aiperf", "gateway")
# Importing once, with byte code written, halves every later start of a server (uv installs sources only).
WARM_UP = (
    "vllm.entrypoints.cli.main, vllm.entrypoints.openai.api_server, vllm.v1.worker.cpu_worker",
    "jupyterlab.labapp, ipykernel.kernelapp, nbconvert, papermill, matplotlib.pyplot, pandas",
)


class SetupError(Exception):
    """Something is missing; the message says what, and the line that mends it."""


def main() -> int:
    try:
        with one_at_a_time():
            if not up_to_date():
                set_up()
            for name in EXTRA:
                if f"--{name}" in sys.argv[1:]:
                    bring_environment(name)
        if "--browser" in sys.argv[1:]:
            bring_browser()
        if "--prometheus" in sys.argv[1:]:
            bring_prometheus()
    except SetupError as error:
        print(f"\nSet-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again: it goes on where it stopped.", file=sys.stderr)
        return 130
    return 0


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two `make` at once: the second waits for the first."""
    VENV.mkdir(exist_ok=True)
    with (VENV / ".engineroom-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up is under way in this folder; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    digest = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        digest.update(name.encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()


def up_to_date() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()


def set_up() -> None:
    began = time.monotonic()
    first = "first set-up: one to two minutes, about 3 GB of disk."
    print("Engine Room:", "the set-up is brought up to date." if PYTHON.exists() else first, flush=True)
    check_system()
    STAMP.unlink(missing_ok=True)
    uv = find_uv()
    if not PYTHON.exists():
        step("Python environment", [*uv, "venv", "--allow-existing", "--python", PYTHON_VERSION, str(VENV)])
    install = [*uv, "pip", "install", "--python", str(PYTHON), "--no-deps"]
    sync = [*uv, "pip", "sync", "--python", str(PYTHON), "--require-hashes", *torch_source()]
    step(
        "packages (vLLM, PyTorch, JupyterLab, …), each checked by its hash",
        [*sync, "requirements/course.lock"],
    )
    ours = ["./requirements/vllm-companion", "--editable", "."]
    step("the course itself", [*install, "--no-build-isolation", *ours])
    install_course()
    warm_up()
    temporary = STAMP.with_suffix(".new")
    temporary.write_text(fingerprint())
    temporary.replace(STAMP)
    print(f"Set up in {time.monotonic() - began:.0f} s.", flush=True)


def bring_environment(name: str) -> None:
    """`.venv/NAME` from requirements/NAME.lock; what it lacks (torch, labs) it imports from the course."""
    folder, lock = VENV / name, f"requirements/{name}.lock"
    stamp, wanted = (
        folder / ".engineroom",
        fingerprint() + hashlib.sha256((ROOT / lock).read_bytes()).hexdigest(),
    )
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    uv, python = find_uv(), str(folder / "bin" / "python")
    step(f"environment {name}", [*uv, "venv", "--allow-existing", "--python", str(PYTHON), str(folder)])
    step("", [*uv, "pip", "sync", "--python", python, "--require-hashes", lock])
    (folder / PACKAGES / "course.pth").write_text(f"{VENV / PACKAGES}\n{ROOT}\n")
    stamp.write_text(wanted)


def install_course() -> None:
    """Put the checkout on the path of the course's Python, and the command `engineroom` beside it.

    The distribution `engineroom` holds the library alone; lessons, tools and the command belong to the checkout.
    """
    (VENV / PACKAGES / "course.pth").write_text(f"{ROOT}\n")
    command = PYTHON.with_name("engineroom")
    command.write_text(f"#!{PYTHON}\nfrom tools.__main__ import main\n\nmain()\n")
    command.chmod(0o755)


def check_system() -> None:
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
            f"{free:.1f} GB of disk are free in {ROOT}; set-up needs {FREE_GB}. Free some and repeat."
        )


def find_uv() -> list[str]:
    """uv from the PATH, else the pinned one in an environment of its own."""
    if found := shutil.which("uv"):
        return [found]
    own = VENV / "uv"
    if not (own / "bin" / "uv").exists():
        shutil.rmtree(own, ignore_errors=True)
        hint = "python3 lacks venv or pip.\n  sudo apt-get install python3-venv python3-pip"
        step("uv, the installer", [sys.executable, "-m", "venv", str(own)], hint)
        pip = [str(own / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        step("", [*pip, "--require-hashes", "-r", "requirements/uv.lock"])
    return [str(own / "bin" / "uv")]


def torch_source() -> list[str]:
    """Where `torch==…+cpu` comes from: a local wheel folder if the environment names one, else PyTorch's index."""
    folder = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    return ["--find-links", folder] if folder else ["--torch-backend", "cpu"]


def step(what: str, command: list[str], hint: str = "") -> None:
    """Run one command with a progress line; on failure show its last lines and what to do."""
    if what:
        print(f"  … {what}", flush=True)
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-12:])
        advice = hint or "Is the network up? Run the same command again: finished steps are kept."
        raise SetupError(f"'{' '.join(command[:4])} …' failed.\n{tail}\n{advice}")


def warm_up() -> None:
    print("  … warm-up, so that servers start faster", flush=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen([PYTHON, "-c", f"import {modules}"], cwd=ROOT, env=environment, **quiet)
        for modules in WARM_UP
    ]
    for process in running:
        _, errors = process.communicate()
        if process.returncode:
            hint = "\nInstall that library: sudo apt-get install libnuma1" if "libnuma" in errors else ""
            raise SetupError(
                "a package does not import:\n" + "\n".join(errors.strip().splitlines()[-8:]) + hint
            )


def bring_browser() -> None:
    """A Chromium for the browser tests: the system's, or Debian's package for root, or Playwright's own."""
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


def bring_prometheus() -> None:
    """Prometheus and promtool for the dashboard's tests: the system's, or Debian's in .venv/prometheus."""
    folder = VENV / "prometheus"
    if shutil.which("prometheus") or (folder / "usr/bin/promtool").exists():
        return
    hint = "Unpack a release of Prometheus so that prometheus and promtool are on the PATH, then repeat."
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0 and shutil.which("apt-get"):
        step("", ["apt-get", "update", "-q"], hint)
    get = f"cd '{folder}' && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb"
    step("Prometheus, for the dashboard's tests", ["sh", "-c", get], hint)


if __name__ == "__main__":
    sys.exit(main())
