"""Say in a sentence why a server did not start: from its exit code, its log, or the process that holds its port."""

from __future__ import annotations

import re
import signal
import socket
from contextlib import suppress

import psutil

HOST = "127.0.0.1"
GPU = "Stop other servers (engineroom.kit.process.stop_all) or lower gpu_memory_utilization or max_model_len."
RAM = "Stop other servers and kernels, or lower max_model_len, max_num_seqs or VLLM_CPU_KVCACHE_SPACE."
KV = "Lower max_model_len, or raise gpu_memory_utilization on a GPU, VLLM_CPU_KVCACHE_SPACE on a CPU."
DISK = "Free some space; a container can be started with a larger --shm-size."
MODEL = "Check the path or the model's name; a model on the Hub needs a network and, when gated, HF_TOKEN."
CPU = "See machine().isa: vLLM's CPU build needs avx2 or avx512f. Use another machine or build."
READ = "Read the log below."
PAUSED = "A model's process stalled for a second while it loaded, which makes Triton 2.51 crash."

# What happened, what to do, and a pattern. The first pattern that occurs in the log decides.
CAUSES = [
    ("The port is in use.", "Run the cell again: it picks a new port.", r"address already in use|Errno 98\b"),
    ("The GPU is out of memory.", GPU, r"CUDA (error: )?out of memory|Free memory on device"),
    ("Too little KV cache.", KV, r"No available memory for the cache blocks|KV cache is needed, which is larger"),
    (PAUSED, "Start it again, on a machine that is less busy.", r"interprocess::lock_exception"),
    ("A disk or /dev/shm is full.", DISK, r"No space left on device|Errno 28\b"),
    ("The machine is out of memory.", RAM, r"MemoryError|(Cannot|can't) allocate memory|bad_alloc"),
    ("The model was not found.", MODEL, r"(LocalEntryNotFound|RepositoryNotFound|GatedRepo)Error"),
    ("The model was not found.", MODEL, r"Repo id must|Invalid repository ID|not a valid model identifier"),
    ("The model was not found.", MODEL, r"Can't load the configuration of|does not appear to have a file named"),
    ("A file or folder is missing.", "Check the paths in the command.", r"No such file or directory"),
    ("A Python package is missing.", "Install the environment again.", r"No module named "),
    ("A wrong option in the command.", "See its --help.", r"unrecognized arguments:|No such option:|invalid choice:"),
]  # fmt: skip


def diagnose(log: str, exit_code: int | None) -> tuple[str, str]:
    """Return what happened and what to do.

    ``exit_code`` follows subprocess: minus the number of the signal that ended the server; None while it runs.
    """
    if exit_code == -signal.SIGILL:
        return "It died of SIGILL: this build uses an instruction that this CPU lacks.", CPU
    for what, remedy, pattern in CAUSES:
        if match := re.search(rf".*({pattern}).*", log, re.IGNORECASE):
            return f"{what} The log says: {match[0].strip()[:200]}", remedy
    if exit_code is None:
        return "It still runs but never became ready.", "If it was still loading, raise timeout."
    if exit_code == -signal.SIGKILL:
        return "It was killed (SIGKILL), nearly always because the machine ran out of memory.", RAM
    if exit_code < 0:
        return f"It died of signal {-exit_code} ({signal.strsignal(-exit_code)}).", READ
    return f"It ended with exit code {exit_code} before it was ready.", READ


def listening_process(port: int) -> psutil.Process | None:
    """Return the process that listens on ``port``; None when there is none or this user may not see it."""
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or connection.pid is None:
            continue
        if connection.laddr and connection.laddr.port == port:
            return psutil.Process(connection.pid)
    return None


def port_holder(port: int) -> str | None:
    """Describe the process that keeps ``port`` from being bound; None when the port is free.

    Raises OverflowError when ``port`` is no port number.
    """
    try:
        socket.create_server((HOST, port)).close()
        return None
    except OSError as error:
        unknown = f"a process that this user may not see ({error.strerror})"
    with suppress(psutil.Error):
        if process := listening_process(port):
            return f"process {process.pid} ({' '.join(process.cmdline())[:80]})"
    return unknown
