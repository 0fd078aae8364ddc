"""What set-up gives to the programs that it runs, and what it advises when one fails.

bootstrap.py uses it with whatever Python there is, from 3.8 on: standard library only.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# Variables that belong to the person: where packages come from, and how the network is reached
PIP = re.compile(
    "PIP_(.*INDEX.*|FIND_LINKS|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|TIMEOUT|DEFAULT_TIMEOUT|RETRIES|CACHE_DIR|NO_CACHE_DIR"
    "|KEYRING_PROVIDER|CONFIG_FILE)"
)
UV = re.compile(
    "UV_(.*INDEX.*|FIND_LINKS|CACHE_DIR|NO_CACHE|LINK_MODE|OFFLINE|INSECURE_HOST|KEYRING_PROVIDER|NATIVE_TLS|SYSTEM_CERTS"
    "|HTTP_.*|REQUEST_TIMEOUT|CONCURRENT_.*|PYTHON_INSTALL_.*|PYTHON_DOWNLOADS|PYTHON_PREFERENCE|CONFIG_FILE|NO_CONFIG)"
)
# An environment of another Python that is active: its packages, libraries and interpreter are not the course's
ACTIVE = re.compile("PYTHON.*|VIRTUAL_ENV.*|CONDA_.*|PIPENV_.*|POETRY_.*|__PYVENV_LAUNCHER__")
NETWORK = re.compile(
    "error sending request|failed to fetch|dns error|name resolution|resolve host|could not (connect|resolve)"
    "|connection (refused|reset|aborted|timed out)|unreachable|no route to host|timed? ?out|max retries|proxy|tunnel"
    "|certificate|tls handshake|Failed to establish|ReadTimeout|temporarily unavailable",
    re.IGNORECASE,
)
DISK = re.compile("no space left|disk quota|errno 28|errno 122", re.IGNORECASE)


def environment(spare_home: Path) -> dict[str, str]:
    """Return the environment of every program that set-up runs: this process's without what would misdirect it.

    Settings of pip and uv stay if they say where packages come from, and are dropped if they say where to install
    (PIP_USER, PIP_TARGET, UV_SYSTEM_PYTHON, …). PIP_USER=0 overrules a pip.conf. `spare_home` becomes HOME, for the
    caches of uv and pip, where the person's cannot be written to.
    """

    def belongs(name: str) -> bool:
        if name.startswith("PIP_"):
            return bool(PIP.fullmatch(name))
        if name.startswith("UV_"):
            return bool(UV.fullmatch(name))
        return not ACTIVE.fullmatch(name)

    own = {"PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1", "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    inherited = {name: value for name, value in os.environ.items() if belongs(name)}
    home = Path(inherited.get("HOME") or os.path.expanduser("~"))
    if not os.access(home, os.W_OK | os.X_OK):
        spare_home.mkdir(exist_ok=True)
        own["HOME"] = str(spare_home)
    return {**inherited, **own}


def advice(output: str, hint: str = "") -> str:
    """Return what to do after a step that failed with this output; `hint` is for causes that it does not name."""
    repeat = "Run the same command again: finished steps are not repeated."
    if DISK.search(output):
        return f"The disk is full. Free some space. {repeat}"
    if NETWORK.search(output):
        return "\n".join(filter(None, [hint, f"Is the network up? {repeat}"]))
    return hint or f"The lines above say why. {repeat}"
