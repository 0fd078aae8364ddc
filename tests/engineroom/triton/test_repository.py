"""The description, the repository that is rendered from it, and the commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engineroom.engine.directory import EngineDir
from engineroom.kit.output import OutputError
from engineroom.triton import server
from engineroom.triton.__main__ import app
from engineroom.triton.deployment import Deployment, DeploymentError, describe
from engineroom.triton.render import TEMPLATES, parse_config, render
from engineroom.triton.server import serve
from tests.engineroom.triton.conftest import ROOT, SETTINGS

MODELS = ["ensemble", "postprocessing", "preprocessing", "tensorrt_llm", "tensorrt_llm_bls"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"engine_dir": "engine"}, "engine_dir: .*absolute path"),
        (
            {"engine_dir": "/e", "triton_max_batch_size": 0},
            "triton_max_batch_size: .*greater than 0",
        ),
        ({"engine_dir": "/e", "kv_cache_free_gpu_mem_fraction": "1.5"}, "kv_cache_free_gpu_mem_fraction: "),
        ({"engine_dir": "/e", "triton_backend": "onnx"}, "triton_backend: .*'tensorrtllm'"),
        ({"engine_dir": "/e", "max_batchsize": 4}, "max_batchsize: Extra inputs"),
        ({}, "engine_dir: Field required"),
    ],
)
def test_a_description_that_cannot_be_names_the_field(fields: dict[str, object], expected: str) -> None:
    with pytest.raises(DeploymentError, match=expected):
        describe(**fields)


def test_every_variable_of_the_templates_is_filled(repository: Path) -> None:
    assert sorted(path.name for path in repository.iterdir()) == MODELS
    for name in MODELS:
        config = parse_config((repository / name / "config.pbtxt").read_text())
        assert (config.name, config.max_batch_size) == (name, 64)
        assert (repository / name / "1" / "model.py").exists() == (name != "ensemble")


def test_an_engine_of_trtllm_build_has_its_own_backend_and_no_program_of_ours(tmp_path: Path) -> None:
    deployment = describe(
        engine_dir="/engines/llama", tokenizer_dir="/models/llama", triton_backend="tensorrtllm"
    )
    folder = render(deployment, tmp_path / "repository") / "tensorrt_llm"
    config = parse_config((folder / "config.pbtxt").read_text())
    assert config.backend == "tensorrtllm"
    assert config.parameters["gpt_model_path"].string_value == "/engines/llama"
    assert config.parameters["batch_scheduler_policy"].string_value == "guaranteed_no_evict"
    assert (folder / "1").is_dir() and not list((folder / "1").iterdir())


def test_a_repository_is_not_written_over_another(repository: Path, engine: EngineDir) -> None:
    with pytest.raises(OutputError, match="exists and is not empty"):
        render(describe(engine_dir=engine.path), repository)


def test_every_variable_of_the_description_is_used() -> None:
    text = "".join(path.read_text() for path in TEMPLATES.glob("*/*/*.*"))
    used = set(re.findall(r"\$\{(\w+)\}", text))
    assert used | {"template"} >= set(Deployment.model_fields) >= used


def test_render_and_check_from_a_terminal(engine: EngineDir, tmp_path: Path) -> None:
    runner, repository, engine_dir = CliRunner(), tmp_path / "repository", str(engine.path)
    settings = [f"{name}:{value}" for name, value in SETTINGS.items()]
    command = ["render", str(repository), "--engine_dir", engine_dir, *settings]
    assert runner.invoke(app, command).exit_code == 0
    assert runner.invoke(app, ["check", str(repository)]).exit_code == 0


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("max_queue:3", "max_queue"), ("engine_dir:/other", "engine_dir is given twice")],
)
def test_a_wrong_setting_renders_nothing(tmp_path: Path, setting: str, expected: str) -> None:
    command = ["render", str(tmp_path / "repository"), "--engine_dir", "/engine", setting]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DeploymentError) and expected in str(result.exception)
    assert not (tmp_path / "repository").exists()


def test_the_command_line_has_every_rank_as_launch_triton_server_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "executable", lambda: server.NVIDIA)
    command = " ".join(server.server_command(Path("/repository"), 8000, 8001, 8002, world_size=2))
    assert command.endswith(" :")
    first, second = command.removesuffix(" :").split(" : ")
    assert first.startswith("mpirun --allow-run-as-root -n 1 /opt/tritonserver/bin/tritonserver ")
    assert second.startswith("-n 1 /opt/tritonserver/bin/tritonserver ")
    assert "--load-model=*" in first.split() and "--http-port=8000" in first.split()
    assert {"--model-control-mode=explicit", "--load-model=tensorrt_llm"} <= set(second.split())
    prefixes = re.findall(r"shm-region-prefix-name=(\S+)", command)
    assert len(prefixes) == len(set(prefixes)) == 2


def test_without_a_server_the_error_has_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(server, "NVIDIA", tmp_path / "none")
    with pytest.raises(DeploymentError, match=r"bootstrap\.py --triton"):
        server.executable()


def test_several_ranks_need_nvidia_s_container() -> None:
    with pytest.raises(DeploymentError, match="world_size 2"):
        server.server_command(Path("/repository"), 8000, 8001, 8002, world_size=2)


def test_a_folder_without_models_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="has no model"):
        serve(tmp_path)


def test_the_environment_has_the_server_and_the_numpy_that_its_python_backend_needs() -> None:
    program = "import labs, numpy, torch; print(numpy.__version__, torch.__file__, labs.__file__)"
    command = [server.ENVIRONMENT / "bin" / "python", "-P", "-c", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
    numpy_version, *paths = output.split()
    assert numpy_version == "1.26.4" and all(Path(path).is_relative_to(ROOT) for path in paths)
    assert server.executable().is_file()
