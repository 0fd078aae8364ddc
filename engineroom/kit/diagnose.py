"""Say in a sentence why a program failed: from its exit code and its log."""

from __future__ import annotations

import re
import signal

from engineroom.kit.cause import find_cause, split

PORT = "Run the cell again: it picks a new port."
GPU = "Stop other servers (engineroom stop) or lower gpu_memory_utilization or max_model_len."
RAM = "Stop other servers and kernels, or lower max_model_len, max_num_seqs or VLLM_CPU_KVCACHE_SPACE."
KV = "Lower max_model_len, or raise gpu_memory_utilization on a GPU, VLLM_CPU_KVCACHE_SPACE on a CPU."
LENGTH = "Lower max_model_len to at most the model's max_position_embeddings."
DISK = "Free some space; a container can be started with a larger --shm-size."
MODEL = "Check the path or the model's name; a model on the Hub needs a network and, when gated, HF_TOKEN."
UNSUPPORTED = "This engine does not support the model."
SUPPORT = "Check architectures and model_type in config.json; a newer model may need a newer engine."
WEIGHTS = "A weight file is damaged or not complete: download or copy the model again."
CPU = "See machine().isa: vLLM's CPU build needs avx2 or avx512f. Use another machine or build."
GLIBC = "Use a newer system, or a container image of one."
DRIVER = "Check nvidia-smi; in a container, start it with --gpus all."
LIBRARY = "Install the environment again; a library of CUDA comes with its driver or its package."
RIGHTS = "Check who owns the file (ls -l) and use a folder that you may write to."
FILES = "Raise the limit with `ulimit -n 65536` before the start."
SOCKET = "Set TMPDIR to a folder with a short path, such as /tmp."
READ = "Read the log below."
PAUSED = "A model's process stalled for a second while it loaded, which makes Triton 2.51 crash."

# What happened, what to do, and a pattern. The first pattern that matches an error decides.
CAUSES = [
    ("The port is in use.", PORT, r"already in use|Errno 98\b|\bport \d+ is in use"),
    ("The GPU is out of memory.", GPU, r"CUDA (error: )?out of memory|Free memory on device|CUDA_ERROR_OUT_OF_MEMORY"),
    ("Too little KV cache.", KV, r"No available memory for the cache blocks|KV cache is needed, which is larger"),
    ("The context is longer than the model's.", LENGTH, r"max_model_len.* is greater than the derived"),
    (PAUSED, "Start it again, on a machine that is less busy.", r"interprocess::lock_exception"),
    ("A disk or /dev/shm is full.", DISK, r"No space left on device|Errno 28\b|Disk quota exceeded|Bus error"),
    ("The machine is out of memory.", RAM, r"MemoryError|(Cannot|can't) allocate memory|bad_alloc"),
    ("The machine is out of memory.", RAM, r"DefaultCPUAllocator|Out of memory: Kill|\bKilled\b"),
    ("Too many files are open.", FILES, r"Too many open files|Errno 24\b"),
    ("The path of a socket is too long.", SOCKET, r"path too long|is longer than 107|AF_UNIX path"),
    (UNSUPPORTED, SUPPORT, r"architectures .* (are|is) not supported|does not recognize this architecture"),
    (UNSUPPORTED, SUPPORT, r"Unrecognized model|Unsupported model|has no vLLM implementation"),
    ("The model's weights cannot be read.", WEIGHTS, r"SafetensorError|PytorchStreamReader|any model weights"),
    ("The model was not found.", MODEL, r"(LocalEntryNotFound|RepositoryNotFound|GatedRepo)Error"),
    ("The model was not found.", MODEL, r"Repo id must|Invalid repository ID|not a valid model identifier"),
    ("The model was not found.", MODEL, r"Can't load the configuration of|does not appear to have a file named"),
    ("The system's C library is too old.", GLIBC, r"version `(GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found"),
    ("There is no usable GPU driver.", DRIVER, r"Found no NVIDIA driver|driver version is insufficient|libcuda\.so"),
    ("There is no usable GPU driver.", DRIVER, r"No CUDA GPUs are available"),
    ("A shared library is missing.", LIBRARY, r"cannot open shared object file|undefined symbol"),
    ("A Python package is missing.", "Install the environment again.", r"No module named "),
    ("This build uses an instruction that this CPU lacks.", CPU, r"Illegal instruction"),
    ("A file may not be read or written.", RIGHTS, r"Permission denied|PermissionError|Read-only file system"),
    ("A file or folder is missing.", "Check the paths in the command.", r"No such file or directory"),
    ("A wrong option in the command.", "See its --help.", r"unrecognized arguments:|No such option:|invalid choice:"),
]  # fmt: skip
OF_MACHINE = {PORT, GPU, RAM, DISK, FILES, DRIVER, RIGHTS}
KNOWN = re.compile("|".join(pattern for _, _, pattern in CAUSES), re.IGNORECASE)
QUOTED, LINE = 240, 500  # characters of an error that a message quotes, and of a line of an excerpt


def diagnose(log: str, exit_code: int | None) -> tuple[str, str]:
    """Return what happened and what to do.

    ``exit_code`` follows subprocess: minus the number of the signal that ended the server; None while it runs.
    """
    if exit_code == -signal.SIGILL:
        return "It died of SIGILL: this build uses an instruction that this CPU lacks.", CPU
    if exit_code == -signal.SIGBUS:
        return "It died of SIGBUS: a disk or /dev/shm is full, or a file that it reads was cut short.", DISK
    cause = find_cause(split(log), KNOWN)
    for what, remedy, pattern in CAUSES:
        if cause and (match := re.search(pattern, cause.text, re.IGNORECASE)):
            return f"{what} The log says: {_quote(cause.text, match.start())}", remedy
    what, remedy = _end(exit_code)
    return (f"{what} The log says: {_quote(cause.text)}" if cause else what), remedy


def fault_of_machine(error: Exception) -> str | None:
    """Say what this machine lacked and what to do about it; None for an error that has another reason."""
    text = f"{type(error).__name__}: {error}"
    for what, remedy, pattern in CAUSES:
        if remedy in OF_MACHINE and re.search(pattern, text, re.IGNORECASE):
            return f"{what} {text}. {remedy}"
    return None


def excerpt(log: str, count: int) -> str:
    """Return ``count`` lines of a log up to the error that is its cause, or its last lines when it has no error."""
    lines = split(log)
    cause = find_cause(lines, KNOWN)
    end = cause.end + 1 if cause else len(lines)
    return "\n".join(_quote(line, size=LINE) for line in lines[max(0, end - count) : end])


def _end(exit_code: int | None) -> tuple[str, str]:
    if exit_code is None:
        return "It still runs but never became ready.", "If it was still loading, raise timeout."
    if exit_code == -signal.SIGKILL:
        return "It was killed (SIGKILL), nearly always because the machine ran out of memory.", RAM
    if exit_code < 0:
        return f"It died of signal {-exit_code} ({signal.strsignal(-exit_code)}).", READ
    return f"It ended with exit code {exit_code} before it was ready.", READ


def _quote(text: str, position: int = 0, size: int = QUOTED) -> str:
    """Return the text, or ``size`` characters of it around the position."""
    start = max(0, min(position - 40, len(text) - size))
    quoted = text[start : start + size].rstrip()
    return ("…" if start else "") + quoted + ("…" if start + size < len(text) else "")
