"""The description, the repository that is rendered from it, the mistakes in one that lint finds, and the commands."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engineroom.engine.directory import EngineDir
from engineroom.kit.output import OutputError
from engineroom.triton import server
from engineroom.triton.__main__ import app
from engineroom.triton.deployment import Deployment, DeploymentError, describe
from engineroom.triton.lint import lint
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


def test_a_rendered_repository_has_no_problems(repository: Path) -> None:
    assert lint(repository) == []


def edit(model: str, old: str, new: str) -> Callable[[Path], None]:
    """Returns a function that replaces a pattern in a model's config.pbtxt, once."""

    def edit_config(repository: Path) -> None:
        path = repository / model / "config.pbtxt"
        text, count = re.subn(old, new, path.read_text(), count=1)
        assert count
        path.write_text(text)

    return edit_config


def set_parameter(model: str, key: str, value: str) -> Callable[[Path], None]:
    return edit(model, rf'(key: "{key}" value {{ string_value: )"[^"]*"', rf'\1"{value}"')


def remove(*parts: str) -> Callable[[Path], None]:
    """Returns a function that moves a file or a folder out of the repository."""

    def move_away(repository: Path) -> None:
        repository.joinpath(*parts).rename(repository.parent / f"removed-{parts[-1]}")

    return move_away


MISTAKES = [
    (
        edit("tensorrt_llm", 'backend: "python"', 'backend: "${triton_backend}"'),
        r"unfilled \$\{triton_backend\}",
    ),
    (edit("tensorrt_llm", "decoupled: true", "decoupled: false"), "tensorrt_llm_bls: decoupled differs"),
    (
        set_parameter("tensorrt_llm", "gpt_model_path", "engines/1"),
        "gpt_model_path is 'engines/1', which is relative",
    ),
    (set_parameter("tensorrt_llm", "gpt_model_path", "/none"), "gpt_model_path /none has no config.json"),
    (set_parameter("preprocessing", "tokenizer_dir", "/none"), "tokenizer_dir /none has no tokenizer.json"),
    (
        set_parameter("tensorrt_llm", "max_tokens_in_paged_kv_cache", "100"),
        "below the engine's max_seq_len 256",
    ),
    (set_parameter("tensorrt_llm", "max_tokens_in_paged_kv_cache", "many"), "expected a whole number"),
    (set_parameter("tensorrt_llm", "max_beam_width", "4"), "max_beam_width 4: the engine was built for 1"),
    (set_parameter("tensorrt_llm_bls", "tensorrt_llm_model_name", "llm"), "'llm' is not in this repository"),
    (edit("postprocessing", "max_batch_size: 64", "max_batch_size: 8"), "above postprocessing's 8"),
    (edit("preprocessing", r"preferred_batch_size: \[ 64", "preferred_batch_size: [ 65"), "65 is above"),
    (edit("ensemble", "max_batch_size: 64", "max_batch_size: 0"), "max_batch_size is 0"),
    (
        edit("preprocessing", 'backend: "python"', 'backend: "pyton"'),
        'backend "pyton": expected one of python',
    ),
    (edit("tensorrt_llm", 'backend: "python"', 'backend: "tensorrtllm"'), "NVIDIA's container only"),
    (
        edit("preprocessing", 'name: "preprocessing"', 'name: "tokenizer"'),
        'name is "tokenizer", but its folder is preprocessing',
    ),
    (edit("ensemble", 'key: "QUERY"', 'key: "QUERRY"'), "preprocessing has no input 'QUERRY'"),
    (edit("ensemble", ".*key: .QUERY.*\n", ""), "preprocessing needs the input 'QUERY'"),
    (
        edit("ensemble", 'max_tokens" data_type: TYPE_INT32', 'max_tokens" data_type: TYPE_INT64'),
        "TYPE_INT64",
    ),
    (
        edit("ensemble", 'model_name: "preprocessing"', 'model_name: "pre"'),
        "step 'pre' is not in this repository",
    ),
    (edit("preprocessing", "output", "outputt"), 'config.pbtxt cannot be read: .* "outputt"'),
    (remove("preprocessing", "config.pbtxt"), "preprocessing: no config.pbtxt"),
    (remove("preprocessing", "1"), "preprocessing: no version"),
    (remove("tensorrt_llm", "1", "model.py"), "1/model.py is missing"),
]


@pytest.mark.parametrize(("spoil", "expected"), MISTAKES)
def test_a_mistake_is_named_before_the_server_starts(
    repository: Path, tmp_path: Path, spoil: Callable[[Path], None], expected: str
) -> None:
    copy = tmp_path / "repository"
    shutil.copytree(repository, copy)
    spoil(copy)
    problems = lint(copy)
    assert re.search(expected, "\n".join(problems)) and len(problems) <= 4
    result = CliRunner().invoke(app, ["check", str(copy)])
    assert result.exit_code == 1 and result.output.splitlines() == problems


def test_an_engine_of_another_machine_is_refused_by_the_check(
    engine: EngineDir, repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(engine.path, tmp_path / "engine")
    manifest = tmp_path / "engine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"isa": [', '"isa": ["avx999", '))
    shutil.copytree(repository, tmp_path / "repository")
    set_parameter("tensorrt_llm", "gpt_model_path", str(tmp_path / "engine"))(tmp_path / "repository")
    assert "avx999" in "\n".join(lint(tmp_path / "repository"))


def test_a_folder_that_is_no_repository(repository: Path) -> None:
    assert "Give a folder that holds models" in lint(repository / "ensemble")[0]


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
