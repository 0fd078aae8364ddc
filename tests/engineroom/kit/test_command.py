"""A command ends with a sentence and its exit status, whatever happened; `engineroom` imports only what it runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engineroom.cli import LIBRARY, CommandTarget, load_command
from engineroom.kit import command, errors
from tests.engineroom.kit.sigint import with_sigint

ROOT = Path(__file__).parents[3]
WAITING = """
import time
from engineroom.kit.command import application, run
app = application("Wait.")

@app.command()
def wait() -> None:
    print("waiting", flush=True)
    time.sleep(60)

run(app)
"""


def exit_status(error: BaseException) -> object:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        command.run(fail)
    return caught.value.code


def test_a_users_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(errors.UserError("the engine is too small. Build a larger one.")) == 2
    assert capsys.readouterr().err == "error: the engine is too small. Build a larger one.\n"


def test_a_fault_of_the_program_names_the_file_with_its_traceback(
    capsys: pytest.CaptureFixture[str], data_home: Path
) -> None:
    assert exit_status(KeyError("tokens")) == 70
    [log] = (data_home / "logs").glob("fault-*.log")
    text = capsys.readouterr().err
    assert text.startswith("error: KeyError: 'tokens'\n") and str(log) in text
    assert "Traceback" in log.read_text() and "Traceback" not in text


def test_a_fault_is_reported_where_no_file_can_be_written(
    capsys: pytest.CaptureFixture[str], data_home: Path
) -> None:
    data_home.mkdir()
    (data_home / "logs").touch()
    assert exit_status(KeyError("tokens")) == 70
    assert "could not be saved" in capsys.readouterr().err


@pytest.mark.parametrize(
    "code", [WAITING, WAITING.replace("run(app)", "run(wait)")], ids=["typer", "function"]
)
def test_an_interrupt_ends_with_one_line(code: str) -> None:
    line = with_sigint(signal.Handlers.SIG_DFL, [sys.executable, "-c", code])
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (130, "Interrupted.\n")


def test_a_wrong_option_is_a_usage_error() -> None:
    line = [sys.executable, "-m", "engineroom", "vllm", "--no-such-option"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 2 and "No such option" in result.stderr


def test_help_waits_for_no_module_of_a_command() -> None:
    code = "import sys; from engineroom.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    line = [sys.executable, "-c", code, "--help"]
    result = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    modules = set(result.stdout.split())
    assert "Commands:" in result.stdout and "engineroom.cli" in modules
    assert modules.isdisjoint({"torch", "transformers", *(target.module for target in LIBRARY.values())})


def test_every_command_exists() -> None:
    for target in LIBRARY.values():
        load_command(target)
    with pytest.raises(ValueError, match="has no command 'bild'"):
        load_command(CommandTarget("engineroom.engine.__main__", "", "bild"))
