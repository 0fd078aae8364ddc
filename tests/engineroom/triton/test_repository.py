"""The description, the repository that is rendered from it, what a learner can get wrong in one, and the command."""

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
from engineroom.triton.render import TEMPLATES, parse, render
from engineroom.triton.server import serve
from tests.engineroom.triton.conftest import ROOT, SETTINGS

MODELS = ["ensemble", "postprocessing", "preprocessing", "tensorrt_llm", "tensorrt_llm_bls"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"engine_dir": "engine"}, "engine_dir: .*absolute path"),
        (
            {"engine_dir": "/e", "triton_max_batch_size": 0},
            "triton_max_batch_size: .*greater than or equal to 1",
        ),
        ({"engine_dir": "/e", "kv_cache_free_gpu_mem_fraction": "1.5"}, "kv_cache_free_gpu_mem_fraction: "),
        ({"engine_dir": "/e", "triton_backend": "onnx"}, "triton_backend: .*'tensorrtllm'"),
        ({"engine_dir": "/e", "max_batchsize": 4}, "max_batchsize: Extra inputs"),
        ({}, "engine_dir: Field required"),
    ],
)
def test_a_description_that_cannot_be_names_the_field(fields: dict[str, object], words: str) -> None:
    with pytest.raises(DeploymentError, match=words):
        describe(**fields)


def test_every_variable_of_the_templates_is_filled(repository: Path) -> None:
    assert sorted(path.name for path in repository.iterdir()) == MODELS
    for name in MODELS:
        config = parse((repository / name / "config.pbtxt").read_text())
        assert (config.name, config.max_batch_size) == (name, 64)
        assert (repository / name / "1" / "model.py").exists() == (name != "ensemble")


def test_an_engine_of_trtllm_build_has_its_own_backend_and_no_program_of_ours(tmp_path: Path) -> None:
    made = describe(engine_dir="/engines/llama", tokenizer_dir="/models/llama", triton_backend="tensorrtllm")
    folder = render(made, tmp_path / "repository") / "tensorrt_llm"
    config = parse((folder / "config.pbtxt").read_text())
    assert (
        config.backend == "tensorrtllm"
        and config.parameters["gpt_model_path"].string_value == "/engines/llama"
    )
    assert config.parameters["batch_scheduler_policy"].string_value == "guaranteed_no_evict"
    assert (folder / "1").is_dir() and not list((folder / "1").iterdir())


def test_a_repository_is_not_written_over_another(repository: Path, engine: EngineDir) -> None:
    with pytest.raises(OutputError, match="exists and is not empty"):
        render(describe(engine_dir=engine.path), repository)


def test_every_variable_of_the_description_is_used() -> None:
    text = "".join(path.read_text() for path in TEMPLATES.glob("*/*/*.*"))
    used = set(re.findall(r"\$\{(\w+)\}", text))
    assert used | {"template"} >= set(Deployment.model_fields) >= used


def test_nothing_is_wrong_with_what_was_rendered(repository: Path) -> None:
    assert lint(repository) == []


def edit(model: str, old: str, new: str) -> Callable[[Path], None]:
    def act(repository: Path) -> None:
        file = repository / model / "config.pbtxt"
        text, count = re.subn(old, new, file.read_text(), count=1)
        assert count
        file.write_text(text)

    return act


def value(model: str, key: str, new: str) -> Callable[[Path], None]:
    return edit(model, rf'(key: "{key}" value {{ string_value: )"[^"]*"', rf'\1"{new}"')


def missing(*parts: str) -> Callable[[Path], None]:
    return lambda repository: repository.joinpath(*parts).rename(repository.parent / f"away-{parts[-1]}")


MISTAKES = [
    (
        edit("tensorrt_llm", 'backend: "python"', 'backend: "${triton_backend}"'),
        r"unfilled \$\{triton_backend\}",
    ),
    (edit("tensorrt_llm", "decoupled: true", "decoupled: false"), "tensorrt_llm_bls: decoupled differs"),
    (
        value("tensorrt_llm", "gpt_model_path", "engines/1"),
        "gpt_model_path is 'engines/1', which is relative",
    ),
    (value("tensorrt_llm", "gpt_model_path", "/none"), "gpt_model_path /none has no config.json"),
    (value("preprocessing", "tokenizer_dir", "/none"), "tokenizer_dir /none has no tokenizer.json"),
    (value("tensorrt_llm", "max_tokens_in_paged_kv_cache", "100"), "below the engine's max_seq_len 256"),
    (value("tensorrt_llm", "max_tokens_in_paged_kv_cache", "many"), "expected a whole number"),
    (value("tensorrt_llm", "max_beam_width", "4"), "max_beam_width 4: the engine was built for 1"),
    (value("tensorrt_llm_bls", "tensorrt_llm_model_name", "llm"), "'llm' is not in this repository"),
    (edit("postprocessing", "max_batch_size: 64", "max_batch_size: 8"), "above postprocessing's 8"),
    (edit("preprocessing", r"preferred_batch_size: \[ 64", "preferred_batch_size: [ 65"), "65 is above"),
    (edit("ensemble", "max_batch_size: 64", "max_batch_size: 0"), "max_batch_size is 0"),
    (
        edit("preprocessing", 'backend: "python"', 'backend: "pyton"'),
        'backend "pyton": expected one of python',
    ),
    (edit("tensorrt_llm", 'backend: "python"', 'backend: "tensorrtllm"'), "NVIDIA's container only"),
    (edit("preprocessing", 'name: "preprocessing"', 'name: "tokenizer"'), 'name is "tokenizer", its folder'),
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
    (missing("preprocessing", "config.pbtxt"), "preprocessing: no config.pbtxt"),
    (missing("preprocessing", "1"), "preprocessing: no version"),
    (missing("tensorrt_llm", "1", "model.py"), "1/model.py is missing"),
]


@pytest.mark.parametrize(("spoil", "words"), MISTAKES)
def test_a_mistake_is_named_before_the_server_starts(
    repository: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoilt = tmp_path / "repository"
    shutil.copytree(repository, spoilt)
    spoil(spoilt)
    found = lint(spoilt)
    assert re.search(words, "\n".join(found)) and len(found) <= 4
    answer = CliRunner().invoke(app, ["check", str(spoilt)])
    assert answer.exit_code == 1 and answer.output.splitlines() == found


def test_an_engine_of_another_machine_is_refused_by_the_check(
    engine: EngineDir, repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(engine.path, tmp_path / "engine")
    manifest = tmp_path / "engine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"isa": [', '"isa": ["avx999", '))
    shutil.copytree(repository, tmp_path / "repository")
    value("tensorrt_llm", "gpt_model_path", str(tmp_path / "engine"))(tmp_path / "repository")
    assert "avx999" in "\n".join(lint(tmp_path / "repository"))


def test_a_folder_that_is_no_repository(repository: Path) -> None:
    assert "Give the repository" in lint(repository / "ensemble")[0]


def test_render_and_check_from_a_terminal(engine: EngineDir, tmp_path: Path) -> None:
    run, made = CliRunner().invoke, str(tmp_path / "made")
    settings = [f"{name}:{value}" for name, value in SETTINGS.items()]
    assert run(app, ["render", made, "--engine_dir", str(engine.path), *settings]).exit_code == 0
    assert run(app, ["check", made]).exit_code == 0
    wrong = run(app, ["render", str(tmp_path / "b"), "--engine_dir", str(engine.path), "max_queue:3"])
    assert isinstance(wrong.exception, DeploymentError) and "max_queue" in str(wrong.exception)
    assert not (tmp_path / "b").exists()


def test_the_command_line_has_every_rank_as_launch_triton_server_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "executable", lambda: server.NVIDIA)
    line = " ".join(server.command(Path("/repository"), 8000, 8001, 8002, world_size=2))
    first, second, end = line.split(" : ") if line.endswith(" : ") else [*line.rstrip(":").split(" : "), ""]
    assert first.startswith("mpirun --allow-run-as-root -n 1 /opt/tritonserver/bin/tritonserver ") and not end
    assert "--load-model=*" in first and "--http-port=8000" in first
    assert "--model-control-mode=explicit --load-model=tensorrt_llm" in second
    prefixes = re.findall(r"shm-region-prefix-name=(\S+)", line)
    assert len(set(prefixes)) == 2


def test_without_a_server_the_line_that_brings_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "ENVIRONMENT", tmp_path)
    monkeypatch.setattr(server, "NVIDIA", tmp_path / "none")
    with pytest.raises(DeploymentError, match=r"bootstrap\.py --triton"):
        server.executable()


def test_several_ranks_need_nvidia_s_container() -> None:
    with pytest.raises(DeploymentError, match="world_size 2"):
        server.command(Path("/repository"), 8000, 8001, 8002, world_size=2)


def test_a_folder_without_models_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="has no model"):
        serve(tmp_path)


def test_the_environment_has_the_server_and_the_numpy_that_its_python_backend_needs() -> None:
    says = "import labs, numpy, torch; print(numpy.__version__, torch.__file__, labs.__file__)"
    python = [server.ENVIRONMENT / "bin" / "python", "-P", "-c", says]
    found = subprocess.run(python, capture_output=True, text=True, check=True, cwd="/").stdout.split()
    assert found[0] == "1.26.4" and all(Path(file).is_relative_to(ROOT) for file in found[1:])
    assert server.executable().is_file()
