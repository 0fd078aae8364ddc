"""Kill each side of a server in turn: no process, port or /dev/shm file may stay."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from labs.kit import keeper, process
from labs.kit.diagnose import holder
from labs.kit.process import answers, free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMAND = [sys.executable, str(HERE / "stubborn_server.py"), "{port}"]


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Wait for a condition; the limit is for what hangs, not for what is slow on a busy machine."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def parts(state: dict) -> tuple[list[int], list[str]]:
    """Pids, and paths in /dev/shm and of the temporary folder, out of the server's own account."""
    everyone = [state, *state["children"]]
    names = [state["semaphore"], *(one["shm"] for one in everyone)]
    return [one["pid"] for one in everyone], [*(f"/dev/shm/{name}" for name in names), state["folder"]]


def state_of(server: process.Server) -> dict:
    return httpx.get(server.url, trust_env=False).json()


def leftovers(port: int, state: dict) -> list[object]:
    pids, files = parts(state)
    left: list[object] = [pid for pid in pids if alive(pid)]
    left += [file for file in files if os.path.exists(file)]
    return left + ([port] if holder(port) else [])


@pytest.fixture
def owner(data_home: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict]]]:
    """Starts processes that own one server each."""
    started = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], dict]:
        command = [sys.executable, str(HERE / "owner.py"), *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))
        for line in started[-1].stdout:
            if line.startswith("{"):
                return started[-1], json.loads(line)
        raise AssertionError("the owner did not start its server")

    yield begin
    for one in started:
        one.kill()
        one.communicate()


def test_stop_leaves_nothing() -> None:
    with process.start(COMMAND, name="one", timeout=20) as server:
        state = state_of(server)
        assert server.alive() and process.running() == [server]
        assert server.seconds_to_ready < 20 and "listening" in server.logs()
        assert "\x1b" not in server.logs()
        server.stop(grace=0.3)
        assert leftovers(server.port, state) == [] and not server.alive()
        assert server.exit_code == -signal.SIGKILL and process.running() == []
    server.stop()
    assert list((Path(os.environ["ENGINEROOM_HOME"]) / "servers").iterdir()) == []


def test_polite_server_gets_sigterm_only() -> None:
    server = process.start([*COMMAND, "polite"], name="polite", timeout=20)
    state, begin = state_of(server), time.monotonic()
    server.stop(grace=20)
    assert server.exit_code == -signal.SIGTERM
    assert time.monotonic() - begin < 15  # its orphan, too, was asked and not waited for
    assert leftovers(server.port, state) == []  # though it died before the keeper's next look


def test_owner_killed(owner: Callable) -> None:
    popen, facts = owner("one")
    # three processes, four files, a folder, the port
    assert len(leftovers(facts["port"], facts["state"])) == 9
    popen.send_signal(signal.SIGKILL)
    assert eventually(lambda: not leftovers(facts["port"], facts["state"]))
    assert eventually(lambda: not alive(facts["keeper"]))
    assert not list(process.home("servers").iterdir())


def test_owner_killed_while_its_other_child_holds_the_pipe(owner: Callable) -> None:
    """A fork of the owner keeps a copy of the pipe: the keeper must not wait for that one."""
    popen, facts = owner("one", "polite", "fork")
    try:
        popen.kill()
        assert eventually(lambda: not leftovers(facts["port"], facts["state"]))
        assert alive(facts["fork"])
    finally:
        os.kill(facts["fork"], signal.SIGKILL)


def test_keeper_killed(owner: Callable) -> None:
    _, facts = owner("one")
    os.kill(facts["keeper"], signal.SIGKILL)
    server, *children = parts(facts["state"])[0]
    assert eventually(lambda: not alive(server))  # its parent-death signal
    assert all(alive(pid) for pid in children)
    [ledger] = process.home("servers").iterdir()  # as if killed before it saw the children's files
    segments = [child["shm"] for child in facts["state"]["children"]]
    seen = [line for line in ledger.read_text().splitlines() if not line.endswith(tuple(segments))]
    ledger.write_text("\n".join(seen))
    said = process.reap()  # finds the children by their mark, though one has renamed itself
    assert len(said) == 1 and "one" in said[0]
    assert leftovers(facts["port"], facts["state"]) == []
    assert process.reap() == []


def test_keeper_and_owner_killed_then_start_cleans(owner: Callable, capsys: pytest.CaptureFixture) -> None:
    popen, facts = owner("one")
    os.kill(facts["keeper"], signal.SIGKILL)
    popen.kill()
    assert eventually(lambda: not alive(facts["keeper"]))
    with process.start([*COMMAND, "polite"], name="two", timeout=20) as server:
        assert leftovers(facts["port"], facts["state"]) == []
        assert server.alive()
    assert "Cleaned up after one" in capsys.readouterr().out


def test_owners_do_not_touch_each_other(owner: Callable) -> None:
    first, facts = owner("same", "polite")
    _, more = owner("same", "polite")
    assert process.reap() == []
    first.kill()
    assert eventually(lambda: not leftovers(facts["port"], facts["state"]))
    assert len(leftovers(more["port"], more["state"])) == 9


def test_processes_of_others_are_spared(data_home: Path) -> None:
    """Neither an unmarked process nor one with another server's mark belongs to a ledger left over."""
    process.home("servers").joinpath("old").touch()
    commands = [["env", f"{keeper.MARK}=other", "sleep", "60"], ["sleep", "60"]]
    strangers = [subprocess.Popen(command) for command in commands]
    try:
        assert "Cleaned up after old" in "".join(process.reap())
        assert not any(stranger.poll() for stranger in strangers)
        assert not list(process.home("servers").iterdir())
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


def test_shared_memory_of_others_is_spared() -> None:
    """A segment that an outside process uses, or that another file replaced, is not deleted."""
    used, replaced = Path("/dev/shm/engineroom-test-used"), Path("/dev/shm/engineroom-test-replaced")
    try:
        replaced.write_text("x")
        with used.open("w"):
            files = {f"{used.stat().st_ino} {used}", f"{replaced.stat().st_ino + 1} {replaced}"}
            keeper.remove_shm(files)
            assert used.exists() and replaced.exists()
        keeper.remove_shm(files)
        assert not used.exists() and replaced.exists()
    finally:
        used.unlink(missing_ok=True)
        replaced.unlink()


def test_crashed_server_is_cleaned_at_once() -> None:
    server = process.start([*COMMAND, "polite"], name="one", timeout=20)
    state = state_of(server)
    assert eventually(lambda: len(server._ledger.read_text().splitlines()) == 4)
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: not leftovers(server.port, state))
    assert process.running() == []
    server.stop()
    assert server.exit_code == -signal.SIGKILL


def test_same_name_replaces_and_two_names_coexist() -> None:
    first = process.start([*COMMAND, "polite"], name="a", timeout=20)
    with process.start([*COMMAND, "polite"], name="b", timeout=20) as second:
        assert first.alive() and second.alive() and first.port != second.port
        with process.start([*COMMAND, "polite"], name="a", timeout=20) as third:
            assert not first.alive() and second.alive() and third.alive()
            process.stop_all()
            assert process.running() == []


def test_port_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(process.ServerFailed, match=rf"Port {port} is in use by process {os.getpid()} "):
            process.start(COMMAND, name="one", port=port)
    with pytest.raises(OverflowError, match="port must be 0-65535"):
        process.start(COMMAND, name="one", port=70_000)


def test_port_taken_after_it_was_chosen() -> None:
    port, taken = free_port(), []

    def take() -> None:
        taken.append(ThreadingHTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler))
        taken[0].serve_forever()

    threading.Timer(0.5, take).start()
    try:
        with pytest.raises(process.ServerFailed, match=rf"was taken by process {os.getpid()} "):
            process.start(["sleep", "60"], name="one", ready="/", port=port)
    finally:
        taken[0].shutdown()
        taken[0].server_close()
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
        process.start(command, name="one", timeout=20)
    told = str(caught.value).partition("\nLast lines of ")[0]  # whose path has the name of this test
    assert re.search(message, told, re.DOTALL) and "\nWhat to do: " in told
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
    """The second signal is for the rare case that Python drops the first, in a destructor or a callback."""
    timers = [threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)) for seconds in (1, 10)]
    for timer in timers:
        timer.start()
    with pytest.raises(KeyboardInterrupt):
        process.start([*COMMAND, "silent"], name="one", timeout=30)
    for timer in timers:
        timer.cancel()
    assert process._servers[-1].exit_code is not None
    assert not list(process.home("servers").iterdir())


def test_corrupt_ledger(tmp_path: Path) -> None:
    """What is no line of a ledger names no file to delete."""
    precious = tmp_path / "precious"
    precious.touch()
    lines = ["{", "\x00\udcff", "1", str(precious), f"{precious.stat().st_ino} {precious}"]
    for number, text in enumerate(lines):
        (process.home("servers") / f"bad{number}").write_text(text, errors="surrogateescape")
    with process.start([*COMMAND, "polite"], name="one", timeout=20) as server:
        assert server.alive()
    assert precious.exists() and not list(process.home("servers").iterdir())


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


def test_disk_fills_while_it_runs(data_home: Path, tmp_path: Path) -> None:
    """The keeper goes on without its ledger and still stops everything."""
    port, ledger = free_port(), tmp_path / "ledger"
    ledger.symlink_to("/dev/full")
    command = [sys.executable, keeper.__file__, str(ledger), *COMMAND[:2], str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as guard:
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}"))
        state = httpx.get(f"http://127.0.0.1:{port}", trust_env=False).json()
        said = guard.communicate("0.2\n", timeout=60)[1]
    assert leftovers(port, state) == [] and not ledger.exists()
    assert "cannot update its ledger: [Errno 28] No space left on device" in said


def test_mark_and_environment_reach_the_server() -> None:
    code = (
        "import os, http.server as h; print(os.environ['GREETING'], flush=True)\n"
        "h.test(h.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
    )
    with process.start(
        [sys.executable, "-c", code], name="one", env={"GREETING": "hello"}, ready="/", timeout=20
    ) as server:
        assert "hello" in server.logs()
