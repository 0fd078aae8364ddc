"""A failure's cause is found in logs: of real failed starts, and of any program that dies amid much noise."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engineroom.kit.diagnose import CAUSES, diagnose, excerpt

LOGS = Path(__file__).parent / "logs"  # cut from the logs of servers that failed on this project's machines
REAL = {
    "engine-damaged": ("It ended with exit code 1", "is not the file that was built: its hash differs"),
    "engine-port": ("The port is in use.", "address already in use"),
    "triton-config": ("It ended with exit code 1", 'has no field named "no_such_field"'),
    "triton-library": ("A shared library is missing.", "undefined symbol: _PyModule_Add"),
    "triton-model-raises": ("It ended with exit code 1", "RuntimeError: the tokenizer has no end token"),
    "triton-port": ("The port is in use.", "Socket '127.0.0.1:45709' already in use"),
    "vllm-kv-cache": ("Too little KV cache.", "No available memory for the cache blocks"),
    "vllm-max-model-len": ("The context is longer than the model's.", "max_model_len (200000) is greater"),
    "vllm-missing-weights": ("The model's weights cannot be read.", "Cannot find any model weights"),
    "vllm-port": ("The port is in use.", "OSError: [Errno 98] Address already in use"),
    "vllm-truncated-weights": ("The model's weights cannot be read.", "Error while deserializing header"),
    "vllm-unknown-architecture": (
        "This engine does not support the model.",
        "Model architectures ['MambaticForCausalLM'] are not supported",
    ),
    "vllm-unknown-model-type": ("This engine does not support the model.", "has model type `gemma9`"),
}
# An error of each kind, as the program writes it.
ERRORS = {
    "OSError: [Errno 98] Address already in use": "The port is in use.",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.": "The GPU is out of memory.",
    "ValueError: Free memory on device (1.2/79.1 GiB) is less than desired": "The GPU is out of memory.",
    "ValueError: No available memory for the cache blocks.": "Too little KV cache.",
    "ValueError: 4.0 GiB KV cache is needed, which is larger than 1.0": "Too little KV cache.",
    "ValueError: User-specified max_model_len (9000) is greater than the derived max_model_len": (
        "The context is longer than the model's."
    ),
    "terminate called after throwing an instance of 'boost::interprocess::lock_exception'": (
        "A model's process stalled for a second while it loaded, which makes Triton 2.51 crash."
    ),
    "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1'": "A disk or /dev/shm is full.",
    "/bin/sh: line 1: 4711 Bus error               (core dumped) vllm serve": "A disk or /dev/shm is full.",
    "MemoryError": "The machine is out of memory.",
    "OSError: [Errno 12] Cannot allocate memory": "The machine is out of memory.",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: not enough memory": (
        "The machine is out of memory."
    ),
    "bash: line 1: 4711 Killed                  vllm serve": "The machine is out of memory.",
    "OSError: [Errno 24] Too many open files": "Too many files are open.",
    'zmq.error.ZMQError: ipc path "/tmp/x" is longer than 107 characters': (
        "The path of a socket is too long."
    ),
    "ValueError: Model architectures ['X'] are not supported for now.": (
        "This engine does not support the model."
    ),
    "safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge": (
        "The model's weights cannot be read."
    ),
    "OSError: Can't load the configuration of 'nobody/nothing'.": "The model was not found.",
    "huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.": "The model was not found.",
    "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name'": (
        "The model was not found."
    ),
    "python: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by libx.so)": (
        "The system's C library is too old."
    ),
    "RuntimeError: Found no NVIDIA driver on your system.": "There is no usable GPU driver.",
    "RuntimeError: No CUDA GPUs are available": "There is no usable GPU driver.",
    "./server: error while loading shared libraries: libnuma.so.1: cannot open shared object file: No such "
    "file or directory": "A shared library is missing.",
    "ModuleNotFoundError: No module named 'uvloop'": "A Python package is missing.",
    "bash: line 1: 4711 Illegal instruction     (core dumped) vllm serve": (
        "This build uses an instruction that this CPU lacks."
    ),
    "PermissionError: [Errno 13] Permission denied: '/models/config.json'": (
        "A file may not be read or written."
    ),
    "FileNotFoundError: [Errno 2] No such file or directory: '/models'": "A file or folder is missing.",
    "vllm: error: unrecognized arguments: --max-len 3": "A wrong option in the command.",
}
PREFIXES = [
    "",
    "(EngineCore pid=123) ",
    "(Worker_TP0 pid=9) ERROR 11-28 13:24:15 [multiproc_executor.py:953] ",
    "(EngineCore_DP0 pid=7) ERROR 11-28 12:00:00 [core.py:708] ",
    "[rank0]: ",
    "ERROR:    ",
    "2026-11-28 13:24:15,123 ERROR ",
    "\x1b[31mERROR\x1b[0m 11-28 12:00:00 [core.py:708] ",
    "E1128 13:31:50.341560 25072 backend_model.cc:692] ",
]
NOISE = st.sampled_from(
    [
        "INFO 11-28 12:00:00 [config.py:54] Automatically detected platform cpu.",
        "(APIServer pid=1) WARNING 11-28 12:00:00 [utils.py:255] limits can cause OSError: Too many open files",
        "WARNING 11-28 12:00:00 [__init__.py:9] ImportError: No module named 'flash_attn'",
        "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.00s/it]\r",
        '  File "/packages/vllm/v1/engine/core.py", line 1510, in run_engine_core',
        "    raise OSError('No space left on device')",
        "Traceback (most recent call last):",
        "The above exception was the direct cause of the following exception:",
        "W1128 13:31:48.985494 25072 metrics.cc:798] \"DCGM unable to start: No such file or directory\"",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "(APIServer pid=1) RuntimeError: Engine process failed to start. See stack trace for the root cause.",
        "error: creating server: Internal - failed to load all models",
        "concurrent.futures.process.BrokenProcessPool: A process in the process pool was terminated",
        "KeyboardInterrupt",
        "",
    ]
)  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_a_real_log(name: str) -> None:
    what, words = REAL[name]
    log = (LOGS / f"{name}.txt").read_text()
    diagnosis = diagnose(log, 1)[0]
    assert diagnosis.startswith(what) and words in diagnosis
    assert any(words in line for line in excerpt(log, 4).splitlines())


def test_every_real_log_is_tested() -> None:
    assert {path.stem for path in LOGS.iterdir()} == set(REAL)


def test_every_known_cause_has_an_error() -> None:
    assert set(ERRORS.values()) == {what for what, _, _ in CAUSES}


@given(
    st.sampled_from(sorted(ERRORS)),
    st.sampled_from(PREFIXES),
    st.lists(NOISE, max_size=60),
    st.lists(NOISE, max_size=60),
)
def test_a_known_cause_is_found_anywhere(
    error: str, prefix: str, before: list[str], after: list[str]
) -> None:
    log = "\n".join(["$ vllm serve", *before, prefix + error, *after])
    what, remedy = diagnose(log, 1)
    assert what.startswith(ERRORS[error]), what
    assert error[:100] in what and remedy
    assert error[:100] in excerpt(log, 3).splitlines()[-1]


@given(st.lists(NOISE, max_size=60), st.sampled_from(PREFIXES), st.lists(NOISE, max_size=60))
def test_an_unknown_exception_is_quoted(before: list[str], prefix: str, after: list[str]) -> None:
    log = "\n".join([*before, f"{prefix}company.errors.QuotaError: no", *after])
    assert diagnose(log, 3) == (
        "It ended with exit code 3 before it was ready. The log says: company.errors.QuotaError: no",
        "Read the log below.",
    )


def test_the_last_of_two_causes_decides() -> None:
    errors = ["OSError: [Errno 98] Address already in use", "MemoryError", "RuntimeError: it failed"]
    assert diagnose("\n".join(errors), 1)[0].startswith("The machine is out of memory.")


def test_an_exception_that_python_ignores_is_no_cause() -> None:
    log = "ValueError: no\nException ignored in: <function f>\nTraceback (most recent call last):\nMemoryError\n"
    assert "The log says: ValueError: no" in diagnose(log, 1)[0]


@pytest.mark.parametrize("number", [signal.SIGILL, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_named(number: signal.Signals) -> None:
    what = diagnose("INFO: loading", -number)[0]
    assert number.name in what or f"signal {number.value}" in what
