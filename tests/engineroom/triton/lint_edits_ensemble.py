"""Edits of the ensemble: its steps, its tensors and how they flow."""

from __future__ import annotations

from tests.engineroom.triton.lint_edits import Edit, edit, remove


def ensemble(old: str, new: str, expected: str | None, late: bool = False) -> Edit:
    return Edit("ensemble", edit(old, new), expected, late, live=True)


def dims(name: str, value: str) -> tuple[str, str]:
    """The pattern and the replacement that give a tensor these dims."""
    return rf'(name: "{name}" data_type: \w+ dims: )\[[^\]]*\]', rf"\1{value}"


ENSEMBLE_EDITS = {
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
    "a response cache": ensemble(
        "^max_batch",
        "response_cache { enable: true }\nmax_batch",
        "does not go with a decoupled step, tensorrt_llm",
    ),
    "a newer field": ensemble(
        r"ensemble_scheduling \{", "ensemble_scheduling {\n  max_inflight_requests: 2", "Triton 24.10"
    ),
    "an agent": ensemble(
        "^max_batch",
        'model_repository_agents { agents { name: "checksum" } }\nmax_batch',
        'agent "checksum": this server has no such',
    ),
    "no steps": ensemble(r"ensemble_scheduling \{[\s\S]*", "ensemble_scheduling { }", "it has no step"),
    "no scheduling": ensemble(r"ensemble_scheduling \{[\s\S]*", "", "it has no step"),
    "an ensemble without a version": Edit("ensemble", remove("1"), "no version", live=True),
}
