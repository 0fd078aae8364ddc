"""Files in /dev/shm: whose they are, and their removal. Each is written as ``<inode> <path>``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil


def shm_files() -> set[str]:
    """Return ``<inode> <path>`` of every file that is in /dev/shm now."""
    with suppress(OSError):  # there is none in some sandboxes
        return {f"{entry.inode()} {entry.path}" for entry in os.scandir("/dev/shm")}
    return set()


def shm_used_by(processes: Iterable[psutil.Process]) -> set[str]:
    """Return the files in /dev/shm that these processes have mapped or open, as far as this user may see them."""
    inodes: set[str] = set()
    # by inode: glibc creates a named semaphore under another name, which /proc goes on to show
    for folder in [Path(f"/proc/{process.pid}") for process in processes]:
        with suppress(OSError):
            maps = (folder / "maps").read_text(errors="replace")
            inodes.update(re.findall(r"(\d+) +/dev/shm/", maps))
        for link in folder.glob("fd/*"):
            with suppress(OSError):
                if os.readlink(link).startswith("/dev/shm/"):
                    inodes.add(str(link.stat().st_ino))
    return {file for file in shm_files() if file.partition(" ")[0] in inodes}


def remove_shm(files: set[str]) -> None:
    """Delete each of these files that still has the same inode and that no process uses."""
    for file in (files & shm_files()) - shm_used_by(psutil.process_iter()):
        with suppress(OSError):
            os.unlink(file.partition(" ")[2])
