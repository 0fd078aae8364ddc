"""Find the line of a log that says why a program failed, among tracebacks, prefixes of processes and noise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What loggers put before a line: a process (vLLM), a level and a time, glog's level (Triton), a rank, a time, a file.
PREFIX = re.compile(
    r"\((?:EngineCore|APIServer|ApiServer|Worker|DPCoordinator|VllmWorker)[^()]*\)"
    r"|\[(?:rank|default|stderr|stdout)\d*\]:"
    r"|(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b(?::\s+| \d\d-\d\d \d\d:\d\d:\d\d)?"
    r"|\[libprotobuf ERROR [^\]]*\]"
    r"|[IWEF]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\]"
    r"|\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"|\[[\w./-]+:\d+\]"
)
MILD = re.compile(r"DEBUG|INFO|WARNING|[IW]\d{4} ")
SEVERE = re.compile(r"ERROR|CRITICAL|[EF]\d{4} ")
EXCEPTION = re.compile(
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Failed|Missing|NotFound|Timeout|Fault|Exit|Interrupt)(?:: |$)"
)
# Exceptions that only say that another process, or another exception, has failed.
WRAPPER = re.compile(
    r"Engine core initialization failed|See root cause above|failed to start|background process|EngineDeadError"
    r"|BrokenProcessPool|KeyboardInterrupt|SystemExit|ChildFailedError|CalledProcessError|CancelledError"
    r"|failed to load all models|failed to read text proto"
)
# How a program ends without an exception: the dynamic linker, C++, the kernel, a shell, argparse, click and Triton.
FATAL = re.compile(
    r"error while loading shared libraries|version `\w+_[\d.]+' not found|terminate called after throwing|what\(\): "
    r"|Segmentation fault|Bus error|Illegal instruction|\bKilled\b|Out of memory: Kill|^[\w./-]+: error: |^error: "
    r"|^Error: |: command not found|: Permission denied|: No such file or directory"
    r"|^failed to (?:load|start)|\bcreating server: "
)
IGNORED = "Exception ignored in"  # by Python, in a destructor: the traceback that follows is no cause
NOISE = re.compile(r"NVML|DCGM|CudaDriverHelper")  # what Triton calls an error on a machine without a GPU
CONTINUED = 4  # lines of an exception's message that are read after its first
CONTINUATION = re.compile(r' {1,3}(?![ ]|File "|For further information)')


@dataclass(frozen=True)
class Candidate:
    """An error in a log: its text, and the number of its last line."""

    text: str
    end: int
    is_wrapper: bool


def split(log: str) -> list[str]:
    """Return the lines that are not empty, without colours; a carriage return ends a line too."""
    lines = ANSI.sub("", log).replace("\r", "\n").split("\n")
    return [line.rstrip() for line in lines if line.strip()]


def candidates(lines: Sequence[str]) -> list[Candidate]:
    """Return every error, in the order of the log."""
    errors = []
    is_ignored = False
    for index, line in enumerate(lines):
        prefix, text = _split_prefix(line)
        is_ignored = is_ignored or text.startswith(IGNORED)
        if MILD.search(prefix) or NOISE.search(text):
            continue
        if EXCEPTION.match(text):
            if not is_ignored:
                errors.append(_exception(lines, index, text))
            is_ignored = False
        elif FATAL.search(text) or (SEVERE.search(prefix) and not text.startswith((" ", "Traceback"))):
            text = text.partition("\\n")[0].strip(' "')  # Triton writes the lines of a message as one
            errors.append(Candidate(text, index, bool(WRAPPER.search(text))))
    return errors


def find_cause(lines: Sequence[str], known: re.Pattern[str]) -> Candidate | None:
    """Return the last error that matches ``known``, or else the last that wraps no other; None without an error."""
    errors = candidates(lines)
    causes = [error for error in errors if not error.is_wrapper]
    matching = [error for error in causes if known.search(error.text)]
    return next(iter([*matching[-1:], *causes[-1:], *errors[-1:]]), None)


def _split_prefix(line: str) -> tuple[str, str]:
    """Return what loggers have put before a line, and what the program has written."""
    rest = line
    while match := PREFIX.match(rest.lstrip()):
        rest = rest.lstrip()[match.end() :]
    prefix = line[: len(line) - len(rest)]
    return prefix, rest.removeprefix(" ") if prefix else rest


def _exception(lines: Sequence[str], index: int, text: str) -> Candidate:
    """The exception that begins at this line; the further lines of its message are indented."""
    end = index
    for line in lines[index + 1 : index + 1 + CONTINUED]:
        continued = _split_prefix(line)[1]
        if not CONTINUATION.match(continued):
            break
        text += f" {continued.strip()}"
        end += 1
    return Candidate(text, end, bool(WRAPPER.search(text)))
