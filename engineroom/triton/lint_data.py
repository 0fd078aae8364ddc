"""The rules of tensors that Triton makes itself when it loads a model: for a warm-up, and as a sequence's first state.

The rules are those of GenerateWarmupData in backend_model_instance.cc and of GenerateInitialStateData in
sequence_batch_scheduler.cc of Triton's core, release 24.10.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from tritonclient.grpc.model_config_pb2 import DataType, ModelInput, ModelWarmup

from engineroom.triton.model_folder import ModelFolder, enum_name

BYTES_PER_ELEMENT = {
    "TYPE_BOOL": 1, "TYPE_UINT8": 1, "TYPE_INT8": 1, "TYPE_UINT16": 2, "TYPE_INT16": 2, "TYPE_FP16": 2, "TYPE_BF16": 2,
    "TYPE_UINT32": 4, "TYPE_INT32": 4, "TYPE_FP32": 4, "TYPE_UINT64": 8, "TYPE_INT64": 8, "TYPE_FP64": 8,
    "TYPE_STRING": 0,
}  # fmt: skip


def check_data(
    model: ModelFolder, folder: str, kind: str | None, file: str, data_type: int, dims: Sequence[int]
) -> Iterator[str]:
    """The data of a tensor: zeros, random values, or a file of `folder` in the model's folder."""
    if kind is None:
        yield model.problem(folder, f"{folder} has a tensor without data. Give zero_data: true, or a file.")
    if not file:
        return
    path, type_name = model.path / folder / file, enum_name(DataType, data_type)
    num_bytes = math.prod(dims) * BYTES_PER_ELEMENT.get(type_name, 0)
    if not path.is_file():
        message = f"{path} does not exist. Add it, or give zero_data: true."
        yield model.problem(re.escape(file), message)
    elif path.stat().st_size < num_bytes:
        message = f"{path} has {path.stat().st_size} bytes; {type_name} {list(dims)} needs {num_bytes}."
        yield model.problem(re.escape(file), message)


def check_warmup(model: ModelFolder) -> Iterator[str]:
    """The requests that Triton sends to a model before it is ready; one with batch_size 0 is not sent."""
    inputs = {tensor.name: tensor for tensor in model.config.input}
    max_batch_size = max(1, model.config.max_batch_size)
    for warmup in model.config.model_warmup:
        if not warmup.batch_size:
            continue
        if warmup.batch_size > max_batch_size:
            message = f"the warm-up has batch_size {warmup.batch_size}; expected {max_batch_size} at most."
            yield model.problem("model_warmup", message)
        for name, tensor in inputs.items():
            if not tensor.optional and name not in warmup.inputs:
                yield model.problem("model_warmup", f"the warm-up lacks the input {name!r}. Add it.")
        for name, tensor in warmup.inputs.items():
            kind, file = tensor.WhichOneof("input_data_type"), tensor.input_data_file
            yield from check_data(model, "warmup", kind, file, tensor.data_type, tensor.dims)
            yield from check_warmup_input(model, name, tensor, inputs.get(name))


def check_warmup_input(
    model: ModelFolder, name: str, tensor: ModelWarmup.Input, model_input: ModelInput | None
) -> Iterator[str]:
    dims = list(tensor.dims)
    if -1 in dims:
        message = f"the warm-up has dims {dims} for {name!r}; expected a size for each dim."
        yield model.problem("model_warmup", message)
    if model_input is None:
        return
    if tensor.data_type != model_input.data_type:
        types = enum_name(DataType, tensor.data_type), enum_name(DataType, model_input.data_type)
        message = f"the warm-up has {types[0]} for {name!r}, the model {types[1]}. Make them equal."
        yield model.problem("model_warmup", message)
    pairs = zip(dims, model_input.dims, strict=False)
    if len(dims) != len(model_input.dims) or any(expected not in (dim, -1) for dim, expected in pairs):
        message = (
            f"the warm-up has dims {dims} for {name!r}, the model {list(model_input.dims)}. Make them equal."
        )
        yield model.problem("model_warmup", message)
