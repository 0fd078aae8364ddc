"""A real HTTP server with the habits that make servers hard to stop.

It forks a child, and a grandchild in a session of its own, which renames itself as vLLM's processes do. It holds
shared memory and a named semaphore that no resource tracker knows, leaves a temporary folder, and ignores SIGTERM.
Usage: stubborn_server.py PORT [polite|dies|silent]. GET /state lists its processes and files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context, resource_tracker, shared_memory

from setproctitle import setproctitle


def segment() -> str:
    memory = shared_memory.SharedMemory(create=True, size=4096)
    resource_tracker.unregister(f"/{memory.name}", "shared_memory")
    open_handles.append(memory)
    return memory.name


def semaphore() -> str:
    """Create a named semaphore. glibc creates its file under another name first, which /proc/PID/maps shows forever."""
    lock = get_context("spawn").Semaphore()
    name = lock._semlock.name  # pyright: ignore[reportAttributeAccessIssue] (the name is not public)
    resource_tracker.unregister(name, "semaphore")
    open_handles.append(lock)
    return f"sem.{name.strip('/')}"


def fork_child(setsid: bool) -> dict:
    """Fork a child that sleeps and holds a segment; return its pid and the segment's name."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        if setsid:
            os.setsid()
            if os.fork():  # a double fork: the grandchild's parent ends at once
                os._exit(0)
            setproctitle("grandchild")
        os.write(write, json.dumps({"pid": os.getpid(), "shm": segment()}).encode())
        while True:
            time.sleep(60)
    return json.loads(os.read(read, 1000))


open_handles: list[object] = []
port = int(sys.argv[1])
mode = sys.argv[2] if len(sys.argv) > 2 else "stubborn"
print(f"\x1b[32mmode {mode}\x1b[0m", flush=True)
if mode == "dies":
    print("RuntimeError: Free memory on device cuda:0 (1.0/80.0 GiB)", flush=True)
    sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
state = {"pid": os.getpid(), "shm": segment(), "children": [fork_child(False), fork_child(True)]}
state["semaphore"] = semaphore()
state["folder"] = tempfile.mkdtemp()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(state).encode()
        self.send_response(503 if mode == "silent" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


print("listening", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
