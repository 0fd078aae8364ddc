"""Single edits of a rendered repository: what the check says of each, and whether the real server loads it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime import scheduler
from engineroom.triton.__main__ import app
from engineroom.triton.backend.parameters import CapacitySchedulerPolicy
from engineroom.triton.lint import lint
from tests.engineroom.triton.conftest import StartTriton
from tests.engineroom.triton.lint_edits import set_parameter
from tests.engineroom.triton.lint_edits_ensemble import ENSEMBLE_EDITS
from tests.engineroom.triton.lint_edits_models import MODEL_EDITS

LOAD_TIMEOUT = 60  # seconds; a safety net, as Triton 2.51 waits for ever for some programs that end at start
EDITS = ENSEMBLE_EDITS | MODEL_EDITS


def test_a_rendered_repository_has_no_problems(repository: Path) -> None:
    assert lint(repository) == []


@pytest.mark.parametrize("name", EDITS)
def test_the_check_names_each_mistake_and_no_other(repository: Path, tmp_path: Path, name: str) -> None:
    change, copy = EDITS[name], tmp_path / "repository"
    shutil.copytree(repository, copy)
    change.spoil(copy / change.model)
    problems = lint(copy)
    if change.expected is None:
        assert problems == []
        return
    assert re.search(change.expected, "\n".join(problems)) and len(problems) <= 12
    assert all(re.match(r"\w+: .+\.$", problem) for problem in problems)
    result = CliRunner().invoke(app, ["check", str(copy)])
    assert result.exit_code == 1 and result.output.splitlines() == problems


@pytest.mark.timeout(400)
def test_the_server_refuses_what_the_check_refuses_and_loads_the_rest(
    repository: Path, start_triton: StartTriton, tmp_path: Path
) -> None:
    """One running server loads each spoilt model. Models with many edits come first, as theirs load fastest."""
    copy, different = tmp_path / "repository", dict[str, object]()
    shutil.copytree(repository, copy)
    with start_triton(copy) as triton, InferenceServerClient(triton.grpc) as client:
        for name, change in EDITS.items():
            if not change.live:
                continue
            change.spoil(copy / change.model)
            problems, refusal = lint(copy), load(client, copy, change.model)
            if bool(problems) != (bool(refusal) or change.late):
                different[name] = problems, refusal
            shutil.rmtree(copy / change.model)
            shutil.copytree(repository / change.model, copy / change.model)
            os.utime(copy / change.model / "config.pbtxt")
    assert different == {}


def load(client: InferenceServerClient, repository: Path, model: str) -> str:
    """Load a model and the ensemble; returns why the server refuses one of them, or an empty string."""
    try:
        if model != "ensemble":
            client.unload_model("ensemble")
            client.load_model(model, client_timeout=LOAD_TIMEOUT)
        client.load_model("ensemble", client_timeout=LOAD_TIMEOUT)
    except InferenceServerException as error:
        return str(error)
    return ""


def test_a_model_of_another_backend_beside_the_others_is_one_line(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "repository")
    folder = tmp_path / "repository" / "other"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('name: "other"\nbackend: "vllm"\nmax_batch_size: 0\n')
    [problem] = lint(tmp_path / "repository")
    assert problem.startswith('other: config.pbtxt:2: backend "vllm": expected one of python')


def test_an_engine_of_another_machine_is_refused_by_the_check(
    engine: EngineDir, repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(engine.path, tmp_path / "engine")
    manifest = tmp_path / "engine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"isa": [', '"isa": ["avx999", '))
    shutil.copytree(repository, tmp_path / "repository")
    set_parameter("gpt_model_path", str(tmp_path / "engine"))(tmp_path / "repository" / "tensorrt_llm")
    assert "avx999" in "\n".join(lint(tmp_path / "repository"))


@pytest.mark.parametrize(
    ("model", "key", "file", "expected"),
    [
        ("tensorrt_llm", "gpt_model_path", "config.json", "layout '1.2.0', expected 'engineroom-1'"),
        ("preprocessing", "tokenizer_dir", "tokenizer.json", "no tokenizer that can be loaded"),
    ],
)
def test_a_folder_with_files_of_another_layout_is_refused(
    engine: EngineDir, repository: Path, tmp_path: Path, model: str, key: str, file: str, expected: str
) -> None:
    source = engine.path if key == "gpt_model_path" else engine.path / "tokenizer"
    folder = shutil.copytree(source, tmp_path / "folder")
    (folder / file).write_text('{"version": "1.2.0"}')
    shutil.copytree(repository, tmp_path / "repository")
    set_parameter(key, str(folder))(tmp_path / "repository" / model)
    [problem] = lint(tmp_path / "repository")
    assert re.match(rf"{model}: config.pbtxt:\d+: .*{expected}", problem)


def test_a_folder_that_is_no_repository(repository: Path) -> None:
    assert "Give a folder that holds models" in lint(repository / "ensemble")[0]


def test_the_check_knows_the_policies_of_the_engine() -> None:
    assert get_args(CapacitySchedulerPolicy) == get_args(scheduler.CapacitySchedulerPolicy)
