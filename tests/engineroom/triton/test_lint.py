"""Single edits of a rendered repository: what the check says of each, and whether the real server loads it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
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
from engineroom.triton.server import NVIDIA
from tests.engineroom.triton.conftest import StartTriton

Spoil = Callable[[Path], object]
LOAD_TIMEOUT = 60  # seconds; a safety net, as Triton 2.51 waits for ever for some programs that end at start
SHORT_CONFIG = """name: "tensorrt_llm" backend: "python" max_batch_size: 64
input [ { name: "ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
output [ { name: "ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
"""


def edit(old: str, new: str) -> Spoil:
    """Returns a function that replaces a pattern in a model's config.pbtxt, once."""

    def edit_config(model: Path) -> None:
        path = model / "config.pbtxt"
        text, count = re.subn(old, new, path.read_text(), count=1, flags=re.MULTILINE)
        assert count
        path.write_text(text)

    return edit_config


def set_parameter(key: str, value: str) -> Spoil:
    return edit(rf'(key: "{key}" value {{ string_value: )"[^"]*"', rf'\1"{value}"')


def add(text: str) -> Spoil:
    """Returns a function that appends a line to a model's config.pbtxt."""

    def append(model: Path) -> None:
        with (model / "config.pbtxt").open("a") as file:
            file.write(text + "\n")

    return append


def write(name: str, text: str) -> Spoil:
    return lambda model: (model / name).write_text(text)


def remove(name: str) -> Spoil:
    def delete(model: Path) -> None:
        path = model / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return delete


def new_version(model: Path) -> None:
    """An older version without a program, which Triton does not load."""
    (model / "1").rename(model / "2")
    (model / "1").mkdir()


@dataclass(frozen=True)
class Edit:
    """`expected`: what the check says, None where it finds nothing. `late`: the server loads it, and requests fail.

    `live`: whether the real server gets it too. Some edits of programs take it too long.
    """

    model: str
    spoil: Spoil
    expected: str | None
    late: bool = False
    live: bool = False


def ensemble(old: str, new: str, expected: str | None, late: bool = False) -> Edit:
    return Edit("ensemble", edit(old, new), expected, late, live=True)


def dims(name: str, value: str) -> tuple[str, str]:
    """The pattern and the replacement that give a tensor these dims."""
    return rf'(name: "{name}" data_type: \w+ dims: )\[[^\]]*\]', rf"\1{value}"


EDITS = {
    "the version of a step": ensemble(
        "model_version: -1", "model_version: 7", "'preprocessing' .* expected -1, .* 1"
    ),
    "version 0 of a step": ensemble("model_version: -1", "model_version: 0", "model_version 0 of step"),
    "the version that is there": ensemble("model_version: -1", "model_version: 1", None),
    "the model of a step": ensemble('"preprocessing"', '"pre"', "step 'pre' is not in this repository"),
    "a step without a model": ensemble(
        'model_name: "preprocessing"', "", "step '' is not in this repository"
    ),
    "a step that is the ensemble": ensemble('"preprocessing"', '"ensemble"', "leads back to this ensemble"),
    "an input's dims": ensemble(*dims("max_tokens", "[ 2 ]"), "TYPE_INT32 .-1, 1., ensemble .* .-1, 2."),
    "an output's rank": ensemble(
        *dims("text_output", "[ -1, -1 ]"), "OUTPUT as TYPE_STRING .-1, -1., ensemble"
    ),
    "dims that fit": ensemble(*dims("text_output", "[ 3 ]"), None),
    "dims 0": ensemble(*dims("seed", "[ 0 ]"), "seed has the dim 0; expected 1 or more"),
    "dims -2": ensemble(*dims("seed", "[ -2 ]"), "seed has the dim -2"),
    "no dims": ensemble(*dims("seed", "[ ]"), "seed has no dims"),
    "no type": ensemble('("seed") data_type: TYPE_UINT64', r"\1", "seed has no data_type"),
    "an unknown type": ensemble("TYPE_STRING", "TYPE_STRNG", r"config.pbtxt:6: cannot be read: .*TYPE_STRNG"),
    "another type": ensemble('("max_tokens" data_type: )TYPE_INT32', r"\1TYPE_INT64", "TYPE_INT64"),
    "two tensors of two types": ensemble(
        'key: "temperature" value: "temperature"',
        'key: "temperature" value: "top_k"',
        "temperature as TYPE_FP32",
    ),
    "a misspelt input of a step": ensemble('key: "QUERY"', 'key: "QUERRY"', "has no input 'QUERRY'"),
    "an input of a step left out": ensemble(".*key: .QUERY.*\n", "", "needs the input 'QUERY'"),
    "an input that no step uses": ensemble('.*key: "seed" .*\n', "", "seed is an input that no step uses"),
    "an output of no step": ensemble(
        '.*output_map.*"num_input_tokens" .*\n', "", "output that no step writes"
    ),
    "a tensor that nobody writes": ensemble(
        'value: "_STOP_WORDS_IDS"', 'value: "_STOP"', "but no step reads it"
    ),
    "a misspelt optional input": ensemble(
        'value: "seed"', 'value: "sed"', "sed is read by a step, but no step writes"
    ),
    "two writers": ensemble('value: "_OUT_PAD_ID"', 'value: "_OUT_END_ID"', "_OUT_END_ID is written twice"),
    "a batch above the steps'": ensemble(
        "max_batch_size: 64", "max_batch_size: 65", "65 is above preprocessing's 64"
    ),
    "a batch below the steps'": ensemble("max_batch_size: 64", "max_batch_size: 8", None),
    "no batch dimension": ensemble(
        "max_batch_size: 64", "max_batch_size: 0", "max_batch_size is 0", late=True
    ),
    "a negative batch": ensemble("max_batch_size: 64", "max_batch_size: -1", "max_batch_size is -1"),
    "the platform": ensemble(
        'platform: "ensemble"', 'platform: "ensembl"', "expected ensemble, or a backend"
    ),
    "no platform": ensemble('platform: "ensemble"', "", 'backend "": expected one of python'),
    "another name": ensemble('name: "ensemble"', 'name: "all"', 'name is "all", but its folder is ensemble'),
    "no name": ensemble('name: "ensemble"', "", None),
    "a version policy": ensemble(
        "^max_batch", "version_policy { specific { versions: 4 } }\nmax_batch", "none of the versions 1"
    ),
    "instances of an ensemble": ensemble(
        "^max_batch", "instance_group { count: 2 }\nmax_batch", "not for an ensemble"
    ),
    "no steps": ensemble(r"ensemble_scheduling \{[\s\S]*", "ensemble_scheduling { }", "it has no step"),
    "no scheduling": ensemble(r"ensemble_scheduling \{[\s\S]*", "", "it has no step"),
    "an ensemble without a version": Edit("ensemble", remove("1"), "no version", live=True),
    "no config": Edit("preprocessing", remove("config.pbtxt"), "preprocessing: no config.pbtxt"),
    "no version": Edit("preprocessing", remove("1"), "preprocessing: config.pbtxt: no version"),
    "no program": Edit("tensorrt_llm", remove("1/model.py"), "1/model.py is missing"),
    "a program with a wrong line": Edit(
        "postprocessing", write("1/model.py", "\ndef x(:"), "1/model.py:2: invalid"
    ),
    "a program without its class": Edit(
        "postprocessing", write("1/model.py", "x = 1"), "no class TritonPythonModel"
    ),
    "an old version without a program": Edit("postprocessing", new_version, None),
    "an unfilled variable": Edit(
        "tensorrt_llm",
        edit('backend: "python"', 'backend: "${triton_backend}"'),
        r"unfilled \$\{triton_backend\}",
    ),
    "an unknown field": Edit(
        "preprocessing", edit("output", "outputt"), r"config.pbtxt:\d+: cannot be read: .*outputt"
    ),
    "one of two decoupled": Edit(
        "tensorrt_llm",
        edit("decoupled: true", "decoupled: false"),
        "bls: config.pbtxt:5: decoupled differs",
        late=True,
    ),
    "two decoupled steps": Edit(
        "preprocessing",
        edit("^max_batch", "model_transaction_policy { decoupled: true }\nmax_batch"),
        "would take tensors of ensemble and preprocessing",
    ),
    "a relative engine": Edit(
        "tensorrt_llm",
        set_parameter("gpt_model_path", "engines/1"),
        "'engines/1', which is relative",
        live=True,
    ),
    "no engine": Edit("tensorrt_llm", set_parameter("gpt_model_path", "/none"), "/none has no config.json"),
    "an unknown policy": Edit(
        "tensorrt_llm",
        set_parameter("batch_scheduler_policy", "guaranteed_no_evicts"),
        r"tensorrt_llm: config.pbtxt:\d+: .*'guaranteed_no_evicts'; expected guaranteed_no_evict or max_utilization",
        live=True,
    ),
    "the other policy": Edit(
        "tensorrt_llm", set_parameter("batch_scheduler_policy", "max_utilization"), None
    ),
    "a misspelt parameter": Edit(
        "tensorrt_llm",
        edit("batch_scheduler_policy", "batch_sheduler_policy"),
        "Rename batch_sheduler_policy to batch_scheduler_policy",
    ),
    "a cache that is too small": Edit(
        "tensorrt_llm", set_parameter("max_tokens_in_paged_kv_cache", "100"), "max_seq_len 256", late=True
    ),
    "a word for a number": Edit(
        "tensorrt_llm", set_parameter("max_tokens_in_paged_kv_cache", "many"), "expected a whole number"
    ),
    "a second width in words": Edit(
        "tensorrt_llm",
        add('parameters { key: "max_beam_width" value { string_value: "one" } }'),
        "max_beam_width is 'one'; expected a whole number",
    ),
    "a width above the engine's": Edit(
        "tensorrt_llm", set_parameter("max_beam_width", "4"), "max_beam_width 4: the engine was built for 1"
    ),
    "a fraction above 1": Edit(
        "tensorrt_llm",
        set_parameter("kv_cache_free_gpu_mem_fraction", "1.5"),
        "expected a number above 0 and up to 1",
    ),
    "a period of 0": Edit(
        "tensorrt_llm", set_parameter("cancellation_check_period_ms", "0"), "from 1 to 3600000"
    ),
    "a flag in other words": Edit(
        "tensorrt_llm", set_parameter("enable_kv_cache_reuse", "maybe"), "expected true or"
    ),
    "a flag in capitals": Edit(
        "postprocessing", set_parameter("skip_special_tokens", "True"), None, live=True
    ),
    "a misspelt flag": Edit(
        "postprocessing", set_parameter("skip_special_tokens", "treu"), "'treu'", live=True
    ),
    "a parameter without a value": Edit(
        "postprocessing", edit('value { string_value: "true" }', ""), "skip_special_tokens is ''", live=True
    ),
    "a parameter left out": Edit(
        "postprocessing", edit(".*skip_special_tokens.*\n", ""), "skip_special_tokens is missing"
    ),
    "a parameter of nobody": Edit(
        "postprocessing", add('parameters { key: "x" value { string_value: "y" } }'), None, live=True
    ),
    "no tokenizer": Edit(
        "preprocessing", set_parameter("tokenizer_dir", "/none"), "/none has no tokenizer.json"
    ),
    "another engine's name": Edit(
        "tensorrt_llm_bls",
        set_parameter("tensorrt_llm_model_name", "llm"),
        "'llm' is not in this",
        late=True,
        live=True,
    ),
    "an empty engine's name": Edit(
        "tensorrt_llm_bls",
        set_parameter("tensorrt_llm_model_name", ""),
        "expected the name of the model",
        live=True,
    ),
    "a preferred batch": Edit(
        "preprocessing", edit(r"(preferred_batch_size: \[) 64", r"\1 65"), "65 is above", live=True
    ),
    "a preferred batch of 0": Edit(
        "preprocessing", edit(r"(preferred_batch_size: \[) 64", r"\1 0"), "below 1", live=True
    ),
    "a smaller batch than the ensemble's": Edit(
        "postprocessing", edit("max_batch_size: 64", "max_batch_size: 8"), "above postprocessing's 8"
    ),
    "a backend of nobody": Edit(
        "preprocessing",
        edit('backend: "python"', 'backend: "vllm"'),
        'backend "vllm": expected one of python',
        live=True,
    ),
    "no backend": Edit("postprocessing", edit('backend: "python"', ""), None),
    "a GPU": Edit("postprocessing", edit("KIND_CPU", "KIND_GPU"), "no GPU. Write KIND_CPU"),
    "any device": Edit("postprocessing", edit("KIND_CPU", "KIND_AUTO"), None),
    "an output of another name": Edit(
        "postprocessing",
        edit('name: "OUTPUT"', 'name: "OUT"'),
        "'postprocessing' has no output 'OUTPUT'",
        live=True,
    ),
    "a reshape": Edit(
        "postprocessing",
        edit(r"dims: \[ -1 \] }", "dims: [ 2 ] reshape { shape: [ 3 ] } }"),
        "Make them equal",
        live=True,
    ),
    "a short config of a blog": Edit(
        "tensorrt_llm",
        write("config.pbtxt", SHORT_CONFIG),
        r"step 'tensorrt_llm': 5\d tensors .*\(\w+, \w+, \w+, …\)",
    ),
}
if not NVIDIA.exists():
    EDITS["NVIDIA's backend"] = Edit(
        "tensorrt_llm", edit('backend: "python"', 'backend: "tensorrtllm"'), "NVIDIA's container only"
    )


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
