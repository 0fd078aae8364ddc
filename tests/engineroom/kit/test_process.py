"""Start and stop servers: no process, port or /dev/shm file may stay, and a failed start says why."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engineroom.kit import process
from engineroom.kit.process import free_port, free_ports
from tests.engineroom.kit.stubborn import COMMAND, eventually, leftovers, state_of


def test_stop_leaves_nothing() -> None:
    with process.start(COMMAND, name="one", timeout=60) as server:
        state = state_of(server)
        assert server.alive() and process.running() == [server]
        assert server.seconds_to_ready > 0 and "listening" in server.logs()
        assert "\x1b" not in server.logs()
        server.stop(grace=0.3)
        assert leftovers(server.port, state) == [] and not server.alive()
        assert server.exit_code == -signal.SIGKILL and process.running() == []
    server.stop()
    assert list((Path(os.environ["ENGINEROOM_HOME"]) / "servers").iterdir()) == []


def test_polite_server_gets_sigterm_only() -> None:
    server = process.start([*COMMAND, "polite"], name="polite", timeout=60)
    state = state_of(server)
    server.stop(grace=3600)  # its orphan gets SIGTERM too; otherwise this would wait an hour
    assert server.exit_code == -signal.SIGTERM
    assert leftovers(server.port, state) == []  # though it died before the keeper's next scan


def test_crashed_server_is_cleaned_at_once() -> None:
    server = process.start([*COMMAND, "polite"], name="one", timeout=60)
    state = state_of(server)
    assert eventually(lambda: len(server._ledger.read_text().splitlines()) == 4)
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: not leftovers(server.port, state))
    assert process.running() == []
    server.stop()
    assert server.exit_code == -signal.SIGKILL


def test_same_name_replaces_and_two_names_coexist() -> None:
    first = process.start([*COMMAND, "polite"], name="a", timeout=60)
    with process.start([*COMMAND, "polite"], name="b", timeout=60) as second:
        assert first.alive() and second.alive() and first.port != second.port
        with process.start([*COMMAND, "polite"], name="a", timeout=60) as third:
            assert not first.alive() and second.alive() and third.alive()
            process.stop_all()
            assert process.running() == []


def test_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(process.ServerFailed, match=rf"Port {port} is in use by process {os.getpid()} "):
            process.start(COMMAND, name="one", port=port)
    with pytest.raises(OverflowError, match="port must be 0-65535"):
        process.start(COMMAND, name="one", port=70_000)


def test_port_taken_after_it_was_chosen() -> None:
    port = free_port()
    servers: list[ThreadingHTTPServer] = []

    def take() -> None:
        assert eventually(lambda: bool(process._servers))
        servers.append(ThreadingHTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler))
        servers[0].serve_forever()

    thread = threading.Thread(target=take)
    thread.start()
    try:
        with pytest.raises(process.ServerFailed, match=rf"was taken by process {os.getpid()} "):
            process.start(["sleep", "60"], name="one", ready="/", port=port)
    finally:
        servers[0].shutdown()
        servers[0].server_close()
    assert process.running() == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["no-such-command"],
            "could not be run: .*No such file or directory: 'no-such-command'.*environment installed",
        ),
        ([*COMMAND, "dies"], "GPU is out of memory"),
        (["sh", "-c", "kill -ILL $$"], "SIGILL"),
        (["sh", "-c", "kill -KILL $$"], "ran out of memory"),
        (["sh", "-c", "kill -SEGV $$"], "signal 11 .Segmentation fault"),
        (["sh", "-c", "exit 0"], "exit code 0 before it was ready"),
        ([sys.executable, "-c", "import nowhere"], "Python package is missing.*nowhere"),
        ([sys.executable, "-c", "open('/nowhere/config.json')"], "A file or folder is missing"),
        ([sys.executable, "-c", "raise MemoryError"], "machine is out of memory"),
        (
            [sys.executable, "-c", "import socket as s; [s.create_server(('', {port})) for _ in 'ab']"],
            "port is in use",
        ),
    ],
)
def test_diagnosis(command: list[str], message: str) -> None:
    with pytest.raises(process.ServerFailed) as caught:
        process.start(command, name="one", timeout=60)
    text = str(caught.value).partition("\nLast lines of ")[0]  # the log's path contains the name of this test
    assert re.search(message, text, re.DOTALL) and "\nWhat to do: " in text
    assert not list(process.home("servers").iterdir()) and process.running() == []


def test_never_ready() -> None:
    with pytest.raises(process.ServerFailed, match=r"Not ready after 0\.5 s"):
        process.start([*COMMAND, "silent"], name="one", timeout=0.5)
    assert process._servers[-1].exit_code is not None
    assert not list(process.home("servers").iterdir())


def test_not_executable(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no interpreter line")
    script.chmod(0o755)
    with pytest.raises(process.ServerFailed, match=r"could not be run: .*Exec format error"):
        process.start([script], name="one")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Workers of pytest-xdist ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_during_readiness(interruptible: None) -> None:
    """A second signal follows because Python may drop the first one in a destructor or a callback."""
    interrupted = threading.Event()

    def interrupt() -> None:
        assert eventually(lambda: any(server.pid for server in process._servers))
        os.kill(os.getpid(), signal.SIGINT)
        if not interrupted.wait(30):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        process.start([*COMMAND, "silent"], name="one", timeout=100)
    interrupted.set()
    thread.join()
    assert process._servers[-1].exit_code is not None
    assert not list(process.home("servers").iterdir())


def test_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(process.ServerFailed, match=r"No space left on device.*Free some disk space"):
        process.start(COMMAND, name="one")


def test_data_home_that_cannot_be_made(data_home: Path) -> None:
    data_home.mkdir()
    (data_home / "servers").touch()
    with pytest.raises(OSError, match=r"servers: File exists. Set ENGINEROOM_HOME"):
        process.start(COMMAND, name="one", timeout=5)
    assert process.running() == []


def test_mark_and_environment_reach_the_server() -> None:
    code = (
        "import os, http.server as h; print(os.environ['GREETING'], flush=True)\n"
        "h.test(h.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
    )
    with process.start(
        [sys.executable, "-c", code], name="one", env={"GREETING": "hello"}, ready="/", timeout=60
    ) as server:
        assert "hello" in server.logs()


def test_ports_of_one_server_are_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is bound and released may be the next one that the system offers."""
    bound: list[int] = []
    create_server = socket.create_server

    def first_unbound(address: tuple[str, int]) -> socket.socket:
        ports = range(bound[0], bound[0] + 100) if bound else [0]
        for port in ports:
            with suppress(OSError):
                listener = create_server((address[0], port))
                bound.append(listener.getsockname()[1])
                return listener
        raise AssertionError("no free port")

    monkeypatch.setattr(socket, "create_server", first_unbound)
    assert len(set(free_ports(3))) == 3
