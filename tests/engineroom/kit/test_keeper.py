"""Kill a server's owner, its keeper or both, or corrupt the ledger: no process, port or /dev/shm file may stay."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from engineroom.kit import keeper, process
from engineroom.kit.process import free_port, responds
from tests.engineroom.kit.stubborn import COMMAND, HERE, ROOT, alive, eventually, leftovers, resources


@pytest.fixture
def owner(data_home: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict]]]:
    """Return a function that starts a process which owns one server."""
    owners = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], dict]:
        command = [sys.executable, str(HERE / "owner.py"), *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        popen = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
        owners.append(popen)
        for line in popen.stdout:
            if line.startswith("{"):
                return popen, json.loads(line)
        raise AssertionError("the owner did not start its server")

    yield begin
    for popen in owners:
        popen.kill()
        popen.communicate()


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty TMPDIR of this process and its children, with a short path as servers require."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tmp-") as name:
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(name)


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
    server, *children = resources(facts["state"])[0]
    assert eventually(lambda: not alive(server))  # its parent-death signal
    assert all(alive(pid) for pid in children)
    [ledger] = process.home("servers").iterdir()  # as if killed before it saw the children's files
    segments = [child["shm"] for child in facts["state"]["children"]]
    lines = [line for line in ledger.read_text().splitlines() if not line.endswith(tuple(segments))]
    ledger.write_text("\n".join(lines))
    messages = process.reap()  # finds the children by their mark, though one has renamed itself
    assert len(messages) == 1 and "one" in messages[0]
    assert leftovers(facts["port"], facts["state"]) == []
    assert process.reap() == []


def test_keeper_and_owner_killed_then_start_cleans(owner: Callable, capsys: pytest.CaptureFixture) -> None:
    popen, facts = owner("one")
    os.kill(facts["keeper"], signal.SIGKILL)
    popen.kill()
    assert eventually(lambda: not alive(facts["keeper"]))
    with process.start([*COMMAND, "polite"], name="two", timeout=60) as server:
        assert leftovers(facts["port"], facts["state"]) == []
        assert server.alive()
    assert "Cleaned up after one" in capsys.readouterr().out


def lose_ledgers(servers: Path) -> None:
    shutil.rmtree(servers)


def replace_folder_by_file(servers: Path) -> None:
    shutil.rmtree(servers)
    servers.write_text("damaged")


def replace_ledger_by_folder(servers: Path) -> None:
    [ledger] = servers.iterdir()
    ledger.unlink()
    ledger.mkdir()


@pytest.mark.parametrize("damage", [lose_ledgers, replace_folder_by_file, replace_ledger_by_folder])
def test_stop_finds_servers_whose_ledger_is_damaged(
    damage: Callable[[Path], None],
    owner: Callable,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers of other owners, which are alive, are left alone."""
    killed, facts = owner("killed")
    servers = process.home("servers")
    monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path / "other home"))
    _, living = owner("living", "polite")
    monkeypatch.setenv("ENGINEROOM_HOME", str(servers.parent))
    os.kill(facts["keeper"], signal.SIGKILL)
    killed.kill()
    assert eventually(lambda: not alive(facts["keeper"]))
    damage(servers)
    command = [sys.executable, "-m", "tools", "stop"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Cleaned up after killed-" in result.stdout
    assert leftovers(facts["port"], facts["state"]) == []
    assert len(leftovers(living["port"], living["state"])) == 9
    assert list(base.iterdir()) == [Path(living["state"]["folder"]).parent]


def test_owners_do_not_touch_each_other(owner: Callable) -> None:
    first, facts = owner("same", "polite")
    _, second_facts = owner("same", "polite")
    assert process.reap() == []
    first.kill()
    assert eventually(lambda: not leftovers(facts["port"], facts["state"]))
    assert len(leftovers(second_facts["port"], second_facts["state"])) == 9


def test_processes_of_others_are_spared(data_home: Path) -> None:
    """A leftover ledger owns neither an unmarked process nor one with another server's mark."""
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
    """A segment is not deleted while another process uses it, or when another file has replaced it."""
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


def test_corrupt_ledger(tmp_path: Path) -> None:
    """Text that is no line of a ledger names no file to delete."""
    precious = tmp_path / "precious"
    precious.touch()
    lines = ["{", "\x00\udcff", "1", str(precious), f"{precious.stat().st_ino} {precious}"]
    for number, text in enumerate(lines):
        (process.home("servers") / f"bad{number}").write_text(text, errors="surrogateescape")
    with process.start([*COMMAND, "polite"], name="one", timeout=60) as server:
        assert server.alive()
    assert precious.exists() and not list(process.home("servers").iterdir())


def test_disk_fills_while_it_runs(data_home: Path, tmp_path: Path) -> None:
    """The keeper goes on without its ledger and still stops everything."""
    port, ledger = free_port(), tmp_path / "ledger"
    ledger.symlink_to("/dev/full")
    command = [sys.executable, "-EP", "-c", keeper.START, str(ROOT), str(ledger), *COMMAND[:2], str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as popen:
        assert eventually(lambda: responds(f"http://127.0.0.1:{port}"))
        state = httpx.get(f"http://127.0.0.1:{port}", trust_env=False).json()
        errors = popen.communicate("0.2\n", timeout=60)[1]
    assert leftovers(port, state) == [] and not ledger.exists()
    assert "cannot update its ledger: [Errno 28] No space left on device" in errors
