"""The environment, the temporary folder and the limits that programs of ours get, on machines that people have."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engineroom.kit import limits, temporary
from engineroom.kit.environment import DROPPED, child_environment
from engineroom.kit.temporary import Requirements, TemporaryFolderError, temporary_base

ROOT = Path(__file__).parents[3]


def test_what_misleads_python_is_dropped_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DROPPED:
        monkeypatch.setenv(name, "value")
    personal = {
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_HOME": "/m",
        "HTTPS_PROXY": "http://p",
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    for name, value in personal.items():
        monkeypatch.setenv(name, value)
    environment = child_environment({"OWN": "1"})
    assert not DROPPED.keys() & environment.keys()
    assert environment.items() >= {**personal, "OWN": "1", "PYTHONUTF8": "1"}.items()
    monkeypatch.setenv("PYTHONPATH", f"/other:{ROOT}")
    assert child_environment()["PYTHONPATH"] == str(ROOT)  # where this library is, and nothing else


@pytest.mark.parametrize("home", ["/proc/missing", "/dev/null", "/proc"])
def test_a_home_that_cannot_be_written_to_is_replaced(
    home: str, data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("XDG_CACHE_HOME", f"{home}/.cache")
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(home)
    )  # as for anyone but root
    environment = child_environment()
    assert environment["HOME"] == str(data_home / "home") and "XDG_CACHE_HOME" not in environment


def test_a_user_without_an_entry_in_the_system_gets_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    monkeypatch.delenv("USER", raising=False)
    assert child_environment()["USER"] == "4000000000"


def test_socks_proxies_are_dropped_where_no_client_could_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    code = "import httpx; httpx.Client()"
    subprocess.run([sys.executable, "-c", code], env=child_environment(), check=True)
    assert child_environment()["HTTP_PROXY"] == "http://127.0.0.1:9"


OBSTACLES = [
    (Requirements(path_bytes=60), "longer than 60 bytes"),
    (Requirements(plain=True), "spaces, quotes"),
    (Requirements(free_bytes=1 << 60), "MiB free"),
]


@pytest.mark.parametrize(("requirements", "reason"), OBSTACLES, ids=["long", "spaces", "full"])
def test_another_temporary_folder_is_used_where_tmpdir_does_not_suit(
    requirements: Requirements, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mein Kürs 'x'" / ("x" * 60)
    folder.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    assert temporary_base(Requirements()) == folder
    if "free" not in reason:
        assert temporary_base(requirements) == Path("/tmp")
    monkeypatch.setattr(temporary, "PLACES", ())
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with pytest.raises(TemporaryFolderError, match=rf"{reason}.*Set TMPDIR"):
        temporary_base(requirements)


UNSHARE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
NOEXEC = """
import os, sys
from engineroom.kit.temporary import Requirements, temporary_base, tmpdir_for
print(temporary_base(Requirements(free_bytes=0)), temporary_base(Requirements(executable=True)))
with tmpdir_for(Requirements(executable=True)):
    print(os.environ["TMPDIR"])
print(os.environ["TMPDIR"])
"""


def test_a_folder_that_is_mounted_noexec_is_for_no_program(tmp_path: Path) -> None:
    """The folder is mounted for the test or, without the right to do that, one of the system's."""
    folder = tmp_path
    mount = f"mount -t tmpfs -o noexec none {tmp_path}"
    command = [*UNSHARE, f'{mount} && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        command = []
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        folder = next(
            Path(fields[1]) for fields in mounts if "noexec" in fields[3] and os.access(fields[1], os.W_OK)
        )
    environment = {**os.environ, "TMPDIR": str(folder)}
    command += [sys.executable, "-c", NOEXEC]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.stdout.split() == [str(folder), "/tmp", "/tmp", str(folder)], result.stderr


LIMITED = "from engineroom.kit import limits; print(limits.too_few_open_files() or limits.raise_open_files())"


@pytest.mark.parametrize(
    ("soft", "hard", "expected"), [(64, 4096, "4096"), (64, 100, "ulimit -Hn"), (512, 512, "512")]
)
def test_the_soft_limit_on_open_files_is_raised_or_the_hard_one_named(
    soft: int, hard: int, expected: str
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    command = [sys.executable, "-c", LIMITED]
    result = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=True, cwd=ROOT)
    assert expected in result.stdout
    assert limits.SERVER_FILES <= limits.OPEN_FILES


TEXT = "from engineroom.kit.command import run; run(lambda: (open('ü', 'w').write('€'), print('ü €'))) # é"
LOCALES = {
    "C": {"LC_ALL": "C"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "Latin-1 output": {"PYTHONIOENCODING": "latin-1"},
    "ASCII output": {"PYTHONIOENCODING": "ascii:strict"},
}


@pytest.mark.parametrize("name", LOCALES)
def test_files_are_in_utf8_and_no_terminal_ends_a_command(name: str, tmp_path: Path) -> None:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))
    }
    program = tmp_path / "program.py"
    program.write_text(TEXT, encoding="utf-8")
    environment |= LOCALES[name] | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, program], env=environment, capture_output=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ü").read_text(encoding="utf-8") == "€"
    if "output" in name:
        assert (
            result.stdout.strip()
            == {"Latin-1": "ü ?".encode("latin-1"), "ASCII": b"? ?"}[name.partition(" ")[0]]
        )


def test_the_temporary_folder_of_the_system_suits_everything() -> None:
    assert temporary_base(Requirements(executable=True, plain=True)).is_dir()
    assert Path(tempfile.gettempdir()).is_dir()
