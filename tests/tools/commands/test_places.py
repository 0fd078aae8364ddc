"""Every command that writes fills whatever folder people give it, or refuses at once and leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engineroom.checkpoint import convert, open_checkpoint
from engineroom.engine import build_cache
from engineroom.engine.build import build
from engineroom.engine.directory import open_engine
from engineroom.kit.errors import UserError
from engineroom.kit.files import FileError, FolderError, write_atomic
from engineroom.kit.output import SUFFIX, OutputError, output_directory
from tests.tools.commands.writers import FILES, FOLDERS, LIMITS, MODEL, ROOT

pytestmark = pytest.mark.timeout(600)  # builds an engine
WRITERS = FOLDERS | FILES
ENTRIES = {"convert": "config.json", "build": "manifest.json", "refit": "manifest.json", "record": "r.json",
           "render": "tensorrt_llm", "report": "report.html", "sync": "docs",
           "dashboard": "dashboard.json", "profile": "engine.trace.json.gz"}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and an engine, each in a folder with spaces, quotes and letters beyond ASCII in its path."""
    folder = tmp_path_factory.mktemp("mein Kürs 'x'")
    checkpoint = convert(MODEL, folder / 'a "checkpoint"')
    return checkpoint, build(checkpoint, folder / "my engine", LIMITS, tokenizer_dir=MODEL).path


def spaces(root: Path) -> Path:
    return root / "mein Kürs 'x' \"y\" $HOME;#\n" / "out"


def empty(root: Path) -> Path:
    (root / "empty").mkdir(mode=0o750)
    return root / "empty"


def link(root: Path) -> Path:
    (root / "link").symlink_to(empty(root))
    return root / "link"


def dangling_link(root: Path) -> Path:
    (root / "link").symlink_to("target", target_is_directory=True)
    return root / "link"


def current(root: Path) -> Path:
    os.chdir(empty(root))
    return Path()


def relative(root: Path) -> Path:
    (root / "a").mkdir()
    os.chdir(root)
    return Path("a/../b")


GOOD = (spaces, empty, link, dangling_link, current, relative)


@pytest.fixture(autouse=True)
def return_to_the_folder() -> Iterator[None]:
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.mark.parametrize("place", GOOD, ids=lambda place: place.__name__)
@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_works(name: str, place: object, inputs: tuple[Path, Path], tmp_path: Path) -> None:
    folder = place(tmp_path)
    if place is dangling_link and name in FILES:
        (tmp_path / "target").mkdir()  # as mkdir -p, these do not create the target of a link
    if name == "dashboard":
        folder.mkdir(parents=True, exist_ok=True)
    before = folder.stat() if folder.exists() else None
    WRITERS[name](*inputs, folder)
    assert (folder / ENTRIES[name]).exists()
    assert before is None or (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert not list(tmp_path.rglob(f"*{SUFFIX}")) and not list(tmp_path.rglob(".engineroom-*"))
    if name == "convert":
        assert open_checkpoint(folder).ranks
    if name in ("build", "refit"):
        assert open_engine(folder).weights.is_file()


@pytest.mark.parametrize(
    "place", ["/proc/out", "/dev/null/out", "loop/out", "file", "file/out", f"{'x' * 300}/out"]
)
@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_cannot_work(
    name: str, place: str, inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anything is compiled, in a sentence, and nothing is created."""
    monkeypatch.setattr(build_cache, "fetch_or_compile", None)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("text")
    with pytest.raises(UserError, match=r"[Cc]hoose|[Nn]ame a|Give --out"):
        WRITERS[name](*inputs, tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]
    assert (tmp_path / "file").read_text() == "text"


MOUNTS = {
    "volume": ("-t tmpfs -o size=256m none", "written"),
    "new volume": ("-t tmpfs -o size=256m none", "written"),
    "nearly full volume": ("-t tmpfs -o size=64k none", "refused"),
    "read-only volume": ("-t tmpfs -o ro none", "refused"),
}
UNSHARE = ["unshare", "--map-root-user", "--mount"]
can_mount = (
    subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
)


@pytest.mark.parametrize("kind", MOUNTS if can_mount else [], ids=str) if can_mount else lambda test: None
def test_a_mounted_volume(kind: str, inputs: tuple[Path, Path], tmp_path: Path) -> None:
    options, expected = MOUNTS[kind]
    folders = [tmp_path / name for name in WRITERS]
    lines = []
    for folder in folders:
        folder.mkdir()
        lines.append(f"mount {options} {shlex.quote(str(folder))}")
        if kind == "new volume":  # ext4's
            lines.append(f"mkdir {shlex.quote(str(folder / 'lost+found'))}")
    program = [sys.executable, "-m", "tests.tools.commands.writers", *map(str, (*inputs, *folders))]
    names = [f"ls -A {shlex.quote(str(folder))} | tr '\\n' ' '; echo" for folder in folders]
    script = "; ".join(["set -e", *lines, shlex.join(program), "echo LISTING", *names])
    result = subprocess.run([*UNSHARE, "sh", "-c", script], capture_output=True, text=True, cwd=ROOT)
    output, _, listing = result.stdout.partition("LISTING\n")
    assert result.returncode == 0, result.stderr
    verdicts = dict(line.split(": ", 1) for line in output.splitlines() if line.split(":")[0] in WRITERS)
    for name, names in zip(WRITERS, listing.splitlines(), strict=True):
        fits = kind == "nearly full volume" and name in FILES  # some are small
        assert verdicts[name].startswith(expected) or fits, (name, verdicts[name])
        if verdicts[name] == "written":
            assert ENTRIES[name] in names.split()
        elif name != "sync":  # one file after the other; the next run completes an interrupted one
            assert names.split() == []


def test_without_the_right_to_mount_the_volume_is_simulated_by_another_device(tmp_path: Path) -> None:
    """/dev/shm is another file system than the temporary folder on nearly every machine: no rename crosses them."""
    folder = Path("/dev/shm") / f"engineroom-test-{os.getpid()}"
    folder.mkdir()
    try:
        (tmp_path / "link").symlink_to(folder)
        with output_directory(tmp_path / "link", 0) as temporary:
            (temporary / "a").write_text("a")
        assert [path.name for path in folder.iterdir()] == ["a"]
    finally:
        shutil.rmtree(folder)


def test_an_error_leaves_an_existing_folder_empty_and_created_parents_gone(tmp_path: Path) -> None:
    for folder in (empty(tmp_path), tmp_path / "new" / "deep" / "out"):
        with pytest.raises(RuntimeError), output_directory(folder, 0) as temporary:
            (temporary / "half").write_text("written")
            raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not list(
        (tmp_path / "empty").iterdir()
    )


def test_what_a_killed_run_left_inside_a_folder_is_replaced_and_not_read(tmp_path: Path) -> None:
    folder = empty(tmp_path)
    (folder / SUFFIX).mkdir()
    (folder / SUFFIX / "half").write_text("written")
    with pytest.raises(UserError, match="interrupted"):
        open_checkpoint(folder)
    with output_directory(folder, 0) as temporary:
        (temporary / "whole").write_text("written")
    assert [path.name for path in folder.iterdir()] == ["whole"]
    (folder / SUFFIX).mkdir()  # killed while the entries were moved: the person decides
    with pytest.raises(OutputError, match="not empty"), output_directory(folder, 0):
        pass


def test_a_file_is_written_through_a_link_and_to_a_pipe_and_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    write_atomic(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    write_atomic(Path("/dev/null"), "text")
    assert not Path("/dev/null").is_file()
    with pytest.raises(FileError, match="No space left"):
        write_atomic(Path("/dev/full"), "text")
    with pytest.raises(FolderError, match=r"Not a directory|Permission denied|No such file"):
        FILES["record"](Path(), Path(), Path("/proc/out"))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
