"""Edits of the models of the templates: their files, their parameters, and what their programs need."""

from __future__ import annotations

from pathlib import Path

from engineroom.triton.server import NVIDIA
from tests.engineroom.triton.lint_edits import Edit, add, edit, remove, set_parameter, write

SHORT_CONFIG = """name: "tensorrt_llm" backend: "python" max_batch_size: 64
input [ { name: "ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
output [ { name: "ids" data_type: TYPE_INT32 dims: [ -1 ] } ]
"""


def new_version(model: Path) -> None:
    """An older version without a program, which Triton does not load."""
    (model / "1").rename(model / "2")
    (model / "1").mkdir()


MODEL_EDITS = {
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
    "an unfilled parameter": Edit(
        "tensorrt_llm",
        set_parameter("batch_scheduler_policy", "${batch_scheduler_policy}"),
        "batch_scheduler_policy is the unfilled variable .* expected guaranteed_no_evict or max_utilization",
    ),
    "an unfilled parameter with a default": Edit(
        "tensorrt_llm", set_parameter("max_beam_width", "${max_beam_width}"), None, live=True
    ),
    "an unfilled parameter that no program here reads": Edit(
        "tensorrt_llm", set_parameter("normalize_log_probs", "${normalize_log_probs}"), None
    ),
    "a warm-up": Edit(
        "postprocessing",
        add(
            'model_warmup { batch_size: 1 inputs { key: "TOKENS_BATCH" value { data_type: TYPE_INT32 dims: 2 } } }'
        ),
        "warm-up",
        live=True,
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
    MODEL_EDITS["NVIDIA's backend"] = Edit(
        "tensorrt_llm", edit('backend: "python"', 'backend: "tensorrtllm"'), "NVIDIA's container only"
    )
