"""Say in a sentence why a server did not come up, from its exit code and its log."""

from __future__ import annotations

import re
import signal

GPU = "Stop other servers (labs.kit.process.stop_all) or lower gpu_memory_utilization or max_model_len."
RAM = "Stop other servers and kernels, or lower max_model_len, max_num_seqs or VLLM_CPU_KVCACHE_SPACE."
KV = "Lower max_model_len, or raise gpu_memory_utilization on a GPU, VLLM_CPU_KVCACHE_SPACE on a CPU."
DISK = "Free some space; a container can be started with a larger --shm-size."
HELP = "Compare the options with the program's --help."
MODEL = "Check the path or the model's name; a model on the Hub needs a network and, when gated, HF_TOKEN."

# The first pattern that occurs in the log decides: (pattern, what happened, what to do).
HUB = (
    r"LocalEntryNotFoundError|RepositoryNotFoundError|GatedRepoError|Repo id must|Invalid repository ID"
    r"|not a valid model identifier|Can't load the configuration of|does not appear to have a file named"
)
CAUSES = [
    (r"address already in use|Errno 98\b", "The port is in use.", "Run the cell again: it picks a new port."),
    (r"CUDA out of memory|CUDA error: out of memory|Free memory on device", "The GPU is out of memory.", GPU),
    (
        r"No available memory for the cache blocks|KV cache is needed, which is larger",
        "Too little KV cache.",
        KV,
    ),
    (r"No space left on device|Errno 28\b", "A disk or /dev/shm is full.", DISK),
    (
        r"MemoryError|Cannot allocate memory|can't allocate memory|bad_alloc",
        "The machine is out of memory.",
        RAM,
    ),
    (HUB, "The model was not found.", MODEL),
    (
        r"No such file or directory(: '[^']+')?",
        "A file or folder is missing.",
        "Check the paths in the command.",
    ),
    (r"No module named '?[\w.]+'?", "A Python package is missing.", "Install the course environment again."),
    (
        r"unrecognized arguments: .*|No such option: .*|invalid choice: .*",
        "The command has a wrong option.",
        HELP,
    ),
]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def diagnose(log: str, exit_code: int | None) -> tuple[str, str]:
    """Return what happened and what to do.

    ``exit_code`` follows subprocess: minus the signal that ended the server; None: it still runs.
    """
    if exit_code == -signal.SIGILL:
        return (
            "It died of SIGILL: this build uses an instruction that this CPU lacks.",
            "See machine().isa: vLLM's CPU build wants avx2 or avx512f. Use another machine or build.",
        )
    for pattern, what, todo in CAUSES:
        if match := re.search(pattern, log, re.IGNORECASE):
            line = log[log.rfind("\n", 0, match.start()) + 1 :].split("\n")[0]
            return f"{what} The log says: {line.strip()[:200]}", todo
    if exit_code == -signal.SIGKILL:
        return "It was killed (SIGKILL), nearly always because the machine ran out of memory.", RAM
    if exit_code is None:
        return (
            "It still runs but never became ready.",
            "Read the log; if it was still loading, raise timeout.",
        )
    if exit_code < 0:
        return f"It died of {_signal_name(-exit_code)}.", "Read the log below."
    return f"It ended with exit code {exit_code} before it was ready.", "Read the log below."
