"""How the course starts JupyterLab: settings of its own, and terminals in which the course's commands work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

from engineroom.kit import openmp
from engineroom.kit.command import replace
from engineroom.kit.environment import child_environment
from engineroom.kit.machine import machine
from engineroom.vllm.command import environment as vllm_environment
from tools.kernel import TRANSPORT, lasting_runtime

SETTINGS = Path(__file__).with_name("settings")  # no news from the network, no tours but the course's own
EXTENSIONS = Path(__file__).with_name("extensions")  # offers the course's tour
TERMINAL = Path(__file__).with_name("terminal.bashrc")


def start_lab(work: Path, *, port: int, host: str, browser: bool) -> None:
    """Replace this process by JupyterLab on the first lesson of ``work``, which becomes the current folder.

    Terminals and kernels start there too, and ``engineroom``, ``vllm`` and the other commands of this environment come
    first on their PATH.
    """
    openmp.apply()
    variables = child_environment(environment() | lasting_runtime())
    os.environ.clear()
    os.environ.update(variables)
    work = work.resolve()
    os.chdir(work)
    command = lab_command(work, port=port, host=host, browser=browser)
    replace(command)


def lab_command(work: Path, *, port: int, host: str, browser: bool) -> list[str]:
    """Return the command line of JupyterLab on the first lesson of ``work``, an absolute path."""
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={work}"]
    if first_lessons := sorted(work.glob("00_*.ipynb")):  # the address that is opened, and printed
        command.append(f"--LabApp.default_url=/lab/tree/{quote(first_lessons[0].name)}")
    command += [
        f"--KernelManager.transport={TRANSPORT}",
        f"--port={port}",
        f"--ServerApp.ip={host}",
        "--ServerApp.allow_root=True",
    ]
    command += [f"--LabApp.app_settings_dir={SETTINGS}", f"--LabApp.extra_labextensions_path={EXTENSIONS}"]
    # a list: JupyterLab makes the reader's own shell a login shell, which may set the PATH anew
    command += [f"--ServerApp.terminado_settings=shell_command={['bash', '--rcfile', str(TERMINAL), '-i']}"]
    command += [f"--ResourceUseDisplay.mem_limit={int(machine().memory_gib * 2**30)}"]
    return command if browser else [*command, "--no-browser"]


def environment() -> dict[str, str]:
    """Return the variables of JupyterLab, its terminals and its kernels that differ from those of this process.

    vLLM's are those with which the lessons start it, so that a server typed into a terminal behaves as theirs.
    """
    commands = str(Path(sys.executable).parent)
    path = os.pathsep.join([commands, os.environ.get("PATH", os.defpath)])
    settings = vllm_environment("course", machine())
    del settings["HF_HUB_OFFLINE"]  # a notebook may download another model
    own = {name: value for name, value in settings.items() if name not in os.environ}
    return {"ENGINEROOM_BIN": commands, "PATH": path, **own}
