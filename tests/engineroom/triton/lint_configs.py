"""Configurations of a model that repeats its input, each with one edit, and whether Triton 24.10 loads them.

The model's program has no needs of its own, so that Triton alone decides.
"""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

PROGRAM = """import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb.InferenceResponse([pb.Tensor("y", array)]) for array in inputs]
"""
BASE = """backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: 2 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
instance_group { kind: KIND_CPU }
"""
# The files of the model beside its program.
FILES = {"warmup/short": 4, "warmup/whole": 8, "initial_state/short": 4, "initial_state/whole": 8}


def edited(text: str) -> str:
    """The base with the fields of `text` set; a repeated field replaces that of the base."""
    config = text_format.Parse(BASE, ModelConfig())
    change = text_format.Parse(text, ModelConfig())
    for field, _ in change.ListFields():
        config.ClearField(field.name)
    config.MergeFrom(change)
    return text_format.MessageToString(config)


def tensor(kind: str, text: str) -> str:
    return f'{kind} {{ name: "{"x" if kind == "input" else "y"}" data_type: TYPE_FP32 dims: 2 {text} }}'


def control(kind: str, text: str, name: str = "C") -> str:
    return f'control_input {{ name: "{name}" control {{ kind: CONTROL_SEQUENCE_{kind} {text} }} }}'


def sequences(text: str) -> str:
    return f"sequence_batching {{ {text} }}"


def state(initial_state: str, dims: int = 2) -> str:
    text = f'input_name: "i" output_name: "o" data_type: TYPE_FP32 dims: {dims}'
    return sequences(f"state {{ {text} initial_state {{ {initial_state} }} }}")


def warmup(text: str, batch_size: int = 1, name: str = "x", data_type: str = "TYPE_FP32") -> str:
    inputs = f'inputs {{ key: "{name}" value {{ data_type: {data_type} {text} }} }}'
    return f'model_warmup {{ name: "w" batch_size: {batch_size} {inputs} }}'


def dynamic(text: str) -> str:
    return f"dynamic_batching {{ {text} }}"


def batch_input(text: str) -> str:
    return f'batch_input {{ kind: BATCH_ELEMENT_COUNT target_name: "n" {text} }}'


def batch_output(text: str) -> str:
    return f"batch_output {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE {text} }}"


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


DELAY = "timeout_action: DELAY default_timeout_microseconds: 5"
LEVELS = "priority_levels: 2 default_priority_level: 2"
START = "int32_false_true: [ 0, 1 ]"
ZEROS = "dims: 2 zero_data: true"
NAMED_ZEROS = f'name: "s" data_type: TYPE_FP32 {ZEROS}'
DECOUPLED = "model_transaction_policy { decoupled: true }"
LOADED = [
    "",
    tensor("input", "format: FORMAT_NONE allow_ragged_batch: true optional: true"),
    tensor("input", "reshape { shape: [ 2, 1 ] }"),
    "instance_group { count: 0 }",
    "instance_group { kind: KIND_MODEL }",
    'instance_group { kind: KIND_CPU rate_limiter { resources { name: "R" count: 4 } priority: 2 } }',
    "version_policy { latest { num_versions: 2 } }",
    "version_policy { specific { versions: [ 1, 2 ] } }",
    dynamic("max_queue_delay_microseconds: 5 default_priority_level: 2"),
    dynamic(f"{LEVELS} priority_queue_policy {{ key: 1 value {{ max_queue_size: 1 }} }}"),
    dynamic("priority_queue_policy { key: 3 value { max_queue_size: 1 } }"),
    dynamic("preserve_ordering: true default_queue_policy { timeout_action: DELAY }"),
    f"max_batch_size: 0 {dynamic('')}",
    sequences("direct { minimum_slot_utilization: 1 }"),
    sequences("oldest { max_candidate_sequences: 4 }"),
    sequences(control("START", START) + control("CORRID", "data_type: TYPE_STRING", "D")),
    state(NAMED_ZEROS),
    state(NAMED_ZEROS, dims=-1),
    state('name: "s" data_type: TYPE_FP32 dims: 2 data_file: "whole"'),
    f"response_cache {{ enable: false }} {DECOUPLED}",
    "response_cache { enable: true }",
    warmup(ZEROS),
    warmup("dims: 2 random_data: true", batch_size=4),
    warmup('dims: 2 input_data_file: "whole"'),
    warmup("dims: -1", batch_size=0, name="z"),
    batch_input('data_type: TYPE_INT32 source_input: "x"'),
    batch_output('target_name: "y" source_input: "x"'),
    parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "no"),
    'cc_model_filenames { key: "7.5" value: "other.py" } default_model_filename: "model.py"',
    'runtime: "libtriton_python.so"',
    "optimization { graph { level: 7 } }",
]
# What the check says of configurations that the server refuses.
REFUSED = {
    tensor("input", "format: FORMAT_NHWC"): "format of an image and 1 dims",
    tensor("input", "is_shape_tensor: true"): "is_shape_tensor is for engines",
    tensor("output", "is_shape_tensor: true"): "is_shape_tensor is for engines",
    tensor("output", "is_non_linear_format_io: true"): "is_non_linear_format_io is for engines",
    tensor("output", 'label_filename: "labels.txt"'): "labels.txt is not in",
    tensor("input", "reshape { shape: 3 }"): "different numbers of elements",
    "input { data_type: TYPE_FP32 dims: 2 }": "an input has no name",
    "instance_group { kind: KIND_CPU gpus: 0 }": "gpus is given with KIND_CPU",
    "instance_group { kind: 9 }": "kind is 9; expected KIND_CPU",
    'instance_group { kind: KIND_CPU profile: "0" }': "profile is for engines",
    "version_policy { latest { num_versions: 0 } }": "none of the versions 1",
    "version_policy { specific { versions: 2 } }": "none of the versions 1",
    dynamic("preferred_batch_size: 5"): "5 is above max_batch_size 4",
    dynamic("priority_levels: 2"): "default_priority_level is 0; expected 1 to 2",
    dynamic(f"{LEVELS} priority_queue_policy {{ key: 3 value {{ }} }}"): "level 3; expected 1 to 2",
    dynamic(f"{LEVELS} preserve_ordering: true"): "allows one priority level, not 2",
    dynamic(f"preserve_ordering: true default_queue_policy {{ {DELAY} }}"): "timeout_action DELAY",
    sequences("direct { minimum_slot_utilization: 2 }"): "minimum_slot_utilization is 2",
    sequences("oldest { preferred_batch_size: 5 }"): "5 is above max_batch_size 4",
    sequences(control("START", "")): "START has 0 of int32_false_true, fp32_false_true",
    sequences(control("END", f"{START} fp32_false_true: [ 0, 1 ]")): "END has 2 of int32_false_true",
    sequences(
        control("READY", "bool_false_true: false")
    ): "READY has 1 values of bool_false_true; expected 2",
    sequences(control("CORRID", "data_type: TYPE_FP32")): "CORRID is TYPE_FP32; expected one of TYPE_UINT64",
    sequences(control("CORRID", f"data_type: TYPE_INT32 {START}")): "it takes a data_type only",
    sequences(control("START", START) + control("START", START, "D")): "START is given 2 times",
    sequences(control("START", START) + control("END", START)): "control_input 'C' is given twice",
    sequences(control("START", START, "")): "a control_input has no name",
    state('name: "s" data_type: TYPE_INT32 dims: 2 zero_data: true'): "another data_type",
    state('name: "s" data_type: TYPE_FP32 dims: 3 zero_data: true'): "has dims .3., the state .2.",
    state('name: "s" data_type: TYPE_FP32 dims: 2'): "a tensor without data",
    state('name: "s" data_type: TYPE_FP32 dims: 2 data_file: "none"'): "initial_state/none does not exist",
    state('name: "s" data_type: TYPE_FP32 dims: 2 data_file: "short"'): "has 4 bytes; TYPE_FP32 .2. needs 8",
    state(f"data_type: TYPE_FP32 {ZEROS}"): "has no name",
    f"response_cache {{ enable: true }} {DECOUPLED}": "does not go with decoupled: true",
    f"response_cache {{ enable: true }} {sequences('')}": "does not go with sequence_batching",
    warmup(ZEROS, batch_size=5): "batch_size 5; expected 4 at most",
    warmup(ZEROS, name="z"): "lacks the input 'x'",
    warmup("dims: -1 zero_data: true"): "expected a size for each dim",
    warmup("dims: 3 zero_data: true"): "dims .3. for 'x', the model .2.",
    warmup(ZEROS, data_type="TYPE_INT32"): "TYPE_INT32 for 'x', the model TYPE_FP32",
    warmup("dims: 2"): "a tensor without data",
    warmup('dims: 2 input_data_file: "none"'): "warmup/none does not exist",
    warmup('dims: 2 input_data_file: "short"'): "has 4 bytes; TYPE_FP32 .2. needs 8",
    batch_input('data_type: TYPE_INT64 source_input: "x"'): "TYPE_INT64; expected TYPE_INT32 or TYPE_FP32",
    batch_input('data_type: TYPE_INT32 source_input: "z"'): "'z' is no tensor of this model; expected x",
    batch_input("data_type: TYPE_INT32"): "0 values of source_input; expected 1",
    batch_output('target_name: "z" source_input: "x"'): "'z' is no tensor of this model; expected y",
    batch_output('target_name: [ "y", "y" ] source_input: "x"'): "'y' is given twice",
    batch_output('target_name: "y"'): "0 values of source_input; expected 1",
    batch_output('source_input: "x"'): "has no target_name",
    "model_repository_agents { }": "has no agent",
    "batch_input { kind: 99 }": "batch_input 99 has 0 values",
    parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "maybe"): "'maybe'; expected yes or no",
    parameter("EXECUTION_ENV_PATH", "/none"): "EXECUTION_ENV_PATH /none is no environment",
    parameter("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/warmup"): "warmup is no environment",
    'runtime: "other.so"': "backend python has no such library",
    'backend: "onnxruntime"': 'backend "onnxruntime": expected one of python',
    'platform: "ensemble"': "it has no step",
    'model_repository_agents { agents { name: "checksum" } }': 'agent "checksum"',
    "model_metrics { }": "Triton 24.10, which does not have it",
    "ensemble_scheduling { }": "ensemble_scheduling is for an ensemble",
    "max_batch_size: -1": "max_batch_size is -1",
}
