"""The environment of the programs that we start: built from this process's, without what would change how they work.

Everything that belongs to the person stays: PATH, proxies, certificates, CUDA, Hugging Face, vLLM. What is dropped is
listed in DROPPED with its reason.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from engineroom.kit.files import home
from engineroom.kit.proxies import drop_socks, exempt_loopback

ROOT = Path(__file__).parents[2]
DROPPED = {
    "PYTHONHOME": "is the library of another Python",
    "PYTHONPATH": "has packages for another Python, which would hide those of the environment",
    "PYTHONSTARTUP": "is run by every Jupyter kernel",
    "PYTHONINSPECT": "would wait for input at the end of a program",
    "PYTHONWARNINGS": "may turn warnings into errors, and large packages do warn",
    "PYTHONIOENCODING": "would write logs in another encoding than they are read in",
    "PYTHONOPTIMIZE": "removes the assertions that packages rely on",
    "PYTHONPLATLIBDIR": "is the library of another Python",
    "PYTHONCASEOK": "is meant for other systems",
    "IPYTHONDIR": "may have start-up files, which every Jupyter kernel runs",
}
USER_FOLDERS = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a program that this process starts, with the variables of `extra` added.

    Python is in UTF-8 mode whatever the locale is, no proxy is used for this machine itself, and HOME is a folder that
    can be written to. Raises FolderError when there is no such folder.
    """
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED}
    if str(ROOT) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        environment["PYTHONPATH"] = str(ROOT)  # how this package was found
    environment |= {"PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1"}
    _provide_home(environment)
    exempt_loopback(environment)
    drop_socks(environment)
    return environment | dict(extra or {})


def _provide_home(environment: dict[str, str]) -> None:
    """Set HOME to a folder of ours where the person's cannot be written to; name the user where the system has none."""
    folder = Path(environment.get("HOME") or os.path.expanduser("~"))
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        environment["HOME"] = str(home("home"))
        for name in USER_FOLDERS:
            if not os.access(environment.get(name, ""), os.W_OK):
                environment.pop(name, None)
    try:
        pwd.getpwuid(os.getuid())
    except (
        KeyError
    ):  # a container run with --user; getpass.getuser, which PyTorch calls, would raise KeyError
        environment.setdefault("USER", str(os.getuid()))
