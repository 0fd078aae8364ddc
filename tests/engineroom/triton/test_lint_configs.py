"""Configurations with one edit each: the check refuses those that Triton refuses, in words that fit, and no others."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engineroom.triton.lint import lint
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import StartTriton
from tests.engineroom.triton.lint_configs import FILES, LOADED, PROGRAM, REFUSED, edited
from tests.engineroom.triton.lint_fields import FIELD_EDITS

LOAD_TIMEOUT = 120  # seconds; a safety net


def write_model(repository: Path, config: str, name: str = "model") -> None:
    folder = repository / name
    for path, size in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(bytes(size))
    (folder / "1").mkdir()
    (folder / "1" / "model.py").write_text(PROGRAM)
    (folder / "config.pbtxt").write_text(config)


@pytest.mark.parametrize("text", LOADED)
def test_the_check_finds_nothing_in_what_triton_loads(tmp_path: Path, text: str) -> None:
    write_model(tmp_path, edited(text))
    assert lint(tmp_path) == []


@pytest.mark.parametrize("text", REFUSED)
def test_the_check_says_what_is_wrong(tmp_path: Path, text: str) -> None:
    write_model(tmp_path, edited(text))
    problems = lint(tmp_path)
    assert re.search(REFUSED[text], "\n".join(problems))
    assert all(re.match(r"model: config.pbtxt(:\d+)?: .+\.$", problem) for problem in problems)


class Judge:
    """A running Triton that says of each configuration whether it loads it; one that a configuration ends is replaced.

    Some of them end Triton 24.10, such as a warm-up that is larger than max_batch_size.
    """

    def __init__(self, start_triton: StartTriton, repository: Path) -> None:
        self.start_triton, self.repository, self.stack = start_triton, repository, ExitStack()
        write_model(repository, edited(""), "base")
        self.triton: Triton | None = None

    def loads(self, config: str) -> bool:
        if self.triton is None or not self.triton.server.alive():
            self.triton = self.stack.enter_context(self.start_triton(self.repository))
        write_model(self.repository, config)
        try:
            with InferenceServerClient(self.triton.grpc) as client:
                client.load_model("model", client_timeout=LOAD_TIMEOUT)
                client.unload_model("model")
        except InferenceServerException as error:
            assert "Deadline" not in str(error), "Triton neither loaded nor refused the model"
            return False
        finally:
            shutil.rmtree(self.repository / "model")
        return True

    def loads_anew(self, config: str) -> bool:
        """The verdict of a new server: trouble of the old one is no verdict on a configuration."""
        self.stack.close()
        self.triton = None
        return self.loads(config)


@pytest.fixture(scope="module")
def judge(start_triton: StartTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    judge = Judge(start_triton, tmp_path_factory.mktemp("configs") / "repository")
    with judge.stack:
        yield judge


@pytest.mark.timeout(900)
def test_triton_gives_the_same_verdicts(judge: Judge) -> None:
    assert {text for text in LOADED if not judge.loads(edited(text))} == set()
    assert {text for text in REFUSED if judge.loads(edited(text))} == set()


@pytest.mark.timeout(900)
def test_triton_gives_the_same_verdict_on_single_fields(judge: Judge, tmp_path: Path) -> None:
    """Whatever passes the check is loaded, and vice versa. Every fourth edit keeps this at a minute."""
    different: dict[str, str] = {}
    for name, config in list(FIELD_EDITS.items())[::4]:
        problems = problems_of(tmp_path, config)
        if judge.loads(config) == bool(problems) and judge.loads_anew(config) == bool(problems):
            different[name] = "\n".join(problems) or "passes the check"
    assert different == {}


def test_the_check_has_lines_for_any_field(tmp_path: Path) -> None:
    for config in FIELD_EDITS.values():
        assert all(re.match(r"model: .+\.$", problem) for problem in problems_of(tmp_path, config))


def problems_of(repository: Path, config: str) -> list[str]:
    write_model(repository, config)
    problems = lint(repository)
    shutil.rmtree(repository / "model")
    return problems
