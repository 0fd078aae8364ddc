"""The kernels that the course starts: sockets in a private folder instead of TCP ports, which every user can reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir

from engineroom.kit.temporary import SOCKET_PATH_BYTES, Requirements, temporary_base, temporary_folder

TRANSPORT = "ipc"
RUNTIME_DIR = "JUPYTER_RUNTIME_DIR"  # where Jupyter creates connection files and the sockets beside them
SOCKET = "/kernel-" + 36 * "x" + "-ipc-5"  # named by a UUID
SOCKETS = Requirements(name_bytes=len(SOCKET), path_bytes=SOCKET_PATH_BYTES)
TEMPORARY = Requirements(name_bytes=len("/engineroom-01234567" + SOCKET), path_bytes=SOCKET_PATH_BYTES)


class IpcKernelManager(AsyncKernelManager):
    """jupyter_client's manager with its transport over UNIX domain sockets, beside its connection file.

    Without a connection file the sockets would have relative paths, and a kernel in another folder would not find them.
    """

    def __init__(self, **settings: object) -> None:
        connection_file = str(Path(jupyter_runtime_dir(), f"kernel-{uuid4()}.json"))
        super().__init__(**{"transport": TRANSPORT, "connection_file": connection_file, **settings})

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """The kernel's command, with a log of fatal errors only.

        A kernel that is ended amid a cell logs the traceback of a reply that nobody reads, into the terminal of the
        command that was interrupted.
        """
        return super().format_kernel_cmd([*(extra_arguments or []), "--log-level=CRITICAL"])


@contextmanager
def private_runtime() -> Iterator[dict[str, str]]:
    """Yield the variable that sends connection files and sockets to a folder that exists within the block.

    Raises TemporaryFolderError when no folder has a path short enough for sockets.
    """
    with temporary_folder(TEMPORARY) as folder:
        yield {RUNTIME_DIR: str(folder)}


def lasting_runtime() -> dict[str, str]:
    """As `private_runtime`, for a JupyterLab that takes the place of this process: {} where Jupyter's own folder suits.

    Raises TemporaryFolderError.
    """
    folder = Path(jupyter_runtime_dir())
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    too_long = len(os.fsencode(folder)) + SOCKETS.name_bytes > SOCKETS.path_bytes
    if not too_long and os.access(existing, os.W_OK | os.X_OK):
        return {}
    folder = temporary_base(TEMPORARY) / f"jupyter-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise FileExistsError(f"{folder} belongs to another user.")
    return {RUNTIME_DIR: str(folder)}
