"""The rules of a model's tensors: inputs, outputs, and what Triton computes for a whole batch.

The rules are those of ValidateModelInput, ValidateModelOutput and ValidateBatchIO in model_config_utils.cc of Triton's
core, release 24.10.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tritonclient.grpc.model_config_pb2 import BatchInput, DataType, ModelInput, ModelOutput

from engineroom.triton.model_folder import ModelFolder, enum_name, tensor_pattern

BATCH_INPUT_TYPES = (DataType.TYPE_INT32, DataType.TYPE_FP32)
IMAGE_FORMATS = (ModelInput.FORMAT_NHWC, ModelInput.FORMAT_NCHW)


def check_tensors(model: ModelFolder) -> Iterator[str]:
    for tensor in model.config.input:
        yield from check_tensor(model, "input", tensor)
        if tensor.format in IMAGE_FORMATS and len(tensor.dims) != 3:
            message = (
                f"input {tensor.name} has the format of an image and {len(tensor.dims)} dims; expected 3."
            )
            yield model.problem(tensor_pattern(tensor.name), message)
    for tensor in model.config.output:
        yield from check_tensor(model, "output", tensor)
        if tensor.label_filename and not (model.path / tensor.label_filename).is_file():
            message = f"{tensor.label_filename} is not in {model.path}. Add it, or remove label_filename."
            yield model.problem("label_filename", message)
    yield from check_batch_inputs(model)
    yield from check_batch_outputs(model)


def check_tensor(model: ModelFolder, kind: str, tensor: ModelInput | ModelOutput) -> Iterator[str]:
    """The name, type, shape and platform of a tensor."""
    pattern = tensor_pattern(tensor.name)
    if not tensor.name:
        yield model.problem(kind, f"an {kind} has no name. Give it one.")
    if not tensor.data_type:
        yield model.problem(pattern, f"{kind} {tensor.name} has no data_type. Give one, such as TYPE_INT32.")
    if not tensor.dims:
        yield model.problem(pattern, f"{kind} {tensor.name} has no dims. Give them, such as [ 1 ] or [ -1 ].")
    for dim in [*tensor.dims, *tensor.reshape.shape]:
        if dim < 1 and dim != -1:
            yield model.problem(
                pattern, f"{kind} {tensor.name} has the dim {dim}; expected 1 or more, or -1 for any."
            )
    for field in ("is_shape_tensor", "is_non_linear_format_io"):
        if getattr(tensor, field):
            yield model.problem(field, f"{field} is for engines of TensorRT's own backend only. Remove it.")
    if tensor.HasField("reshape") and not same_elements([*tensor.dims], [*tensor.reshape.shape]):
        yield model.problem(
            pattern,
            f"{kind} {tensor.name} has dims {list(tensor.dims)} and reshape {list(tensor.reshape.shape)}, which hold "
            f"different numbers of elements. Make them equal.",
        )
    if tensor.HasField("reshape") and not tensor.reshape.shape and model.config.max_batch_size == 0:
        yield model.problem(
            pattern, f"{kind} {tensor.name} has an empty reshape, which needs a batch dimension."
        )


def same_elements(dims: list[int], shape: list[int]) -> bool:
    """Whether two shapes hold as many elements between their dims of any size."""

    def parts(sizes: list[int]) -> list[int]:
        products = [1]
        for size in sizes:
            if size == -1:
                products.append(1)
            else:
                products[-1] *= size
        return products

    return parts(dims) == parts(shape) and (bool(shape) or math.prod(dims) == 1)


def check_batch_inputs(model: ModelFolder) -> Iterator[str]:
    names = {tensor.name for tensor in model.config.input}
    for batch_input in model.config.batch_input:
        kind, sources = enum_name(BatchInput.Kind, batch_input.kind), list(batch_input.source_input)
        if len(sources) != 1:
            message = f"batch_input {kind} has {len(sources)} values of source_input; expected 1."
            yield model.problem("batch_input", message)
        if batch_input.data_type not in BATCH_INPUT_TYPES:
            data_type = enum_name(DataType, batch_input.data_type)
            message = f"batch_input {kind} is {data_type}; expected TYPE_INT32 or TYPE_FP32."
            yield model.problem("batch_input", message)
        yield from unknown_names(model, "source_input", sources, names)


def check_batch_outputs(model: ModelFolder) -> Iterator[str]:
    input_names = {tensor.name for tensor in model.config.input}
    output_names = {tensor.name for tensor in model.config.output}
    for batch_output in model.config.batch_output:
        sources, targets = list(batch_output.source_input), list(batch_output.target_name)
        if len(sources) != 1:
            message = f"batch_output has {len(sources)} values of source_input; expected 1."
            yield model.problem("batch_output", message)
        if not targets:
            yield model.problem(
                "batch_output", "batch_output has no target_name, which ends Triton. Name an output."
            )
        yield from unknown_names(model, "source_input", sources, input_names)
        yield from unknown_names(model, "target_name", targets, output_names)
        for name in sorted({name for name in targets if targets.count(name) > 1}):
            yield model.problem("target_name", f"target_name {name!r} is given twice. Give it once.")


def unknown_names(model: ModelFolder, field: str, names: list[str], known_names: set[str]) -> Iterator[str]:
    for name in names:
        if name not in known_names:
            expected = ", ".join(sorted(known_names)) or "a tensor, and there is none"
            yield model.problem(field, f"{field} {name!r} is no tensor of this model; expected {expected}.")
