"""How many files and connections this process and its children may have open at once."""

from __future__ import annotations

import resource

OPEN_FILES = 65536  # ten thousand connections and more; a larger number slows programs that close all numbers
SERVER_FILES = 256  # vLLM has about a hundred open before its first request


def raise_open_files() -> int:
    """Raise the soft limit on open files towards the hard one, as far as OPEN_FILES; return the soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return soft if soft != resource.RLIM_INFINITY else OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return target


def too_few_open_files() -> str | None:
    """Return a sentence when a server would run out of open files; None when there are enough."""
    limit = raise_open_files()
    if limit >= SERVER_FILES:
        return None
    return (
        f"This process may have {limit} files open at once, and a server needs {SERVER_FILES}. Raise the hard limit: "
        f"`ulimit -Hn 65536` as root, LimitNOFILE= of a service, or --ulimit nofile=65536 of a container."
    )
