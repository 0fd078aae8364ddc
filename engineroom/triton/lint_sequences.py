"""The rules of `sequence_batching`: control tensors, and the state that a sequence has before its first request.

The rules are those of GetBooleanSequenceControlProperties and GetTypedSequenceControlProperties in
model_config_utils.cc, and of sequence_batch_scheduler.cc, of Triton's core, release 24.10.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tritonclient.grpc.model_config_pb2 import DataType, ModelSequenceBatching

from engineroom.triton.lint_data import check_data
from engineroom.triton.model_folder import ModelFolder, enum_name

Control = ModelSequenceBatching.Control
VALUES = ("int32_false_true", "fp32_false_true", "bool_false_true")
ID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")


def check_sequences(model: ModelFolder) -> Iterator[str]:
    batching = model.config.sequence_batching
    utilization = batching.direct.minimum_slot_utilization
    if utilization < 0 or utilization > 1:
        message = f"minimum_slot_utilization is {utilization:g}; expected a number from 0 to 1."
        yield model.problem("minimum_slot_utilization", message)
    names = [control_input.name for control_input in batching.control_input]
    if "" in names:
        yield model.problem("control_input", "a control_input has no name. Give it one.")
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield model.problem("control_input", f"control_input {name!r} is given twice. Give it once.")
    controls = [control for control_input in batching.control_input for control in control_input.control]
    for kind, count in Counter(control.kind for control in controls).items():
        if count > 1:
            message = f"{enum_name(Control.Kind, kind)} is given {count} times. Give it once."
            yield model.problem(enum_name(Control.Kind, kind), message)
    for control in controls:
        yield from check_control(model, control)
    states = [state.input_name for state in batching.state if state.initial_state]
    for name in sorted({name for name in states if states.count(name) > 1}):
        yield model.problem("initial_state", f"state {name!r} has two initial states. Give it one.")
    for state in batching.state:
        yield from check_state(model, state)


def check_control(model: ModelFolder, control: ModelSequenceBatching.Control) -> Iterator[str]:
    """A control tells the program of a flag by one of two values, or of the sequence's id by a tensor of a type."""
    kind = enum_name(Control.Kind, control.kind)
    values = {field: len(getattr(control, field)) for field in VALUES if getattr(control, field)}
    if control.kind == Control.CONTROL_SEQUENCE_CORRID:
        if enum_name(DataType, control.data_type) not in ID_TYPES:
            message = (
                f"{kind} is {enum_name(DataType, control.data_type)}; expected one of {', '.join(ID_TYPES)}."
            )
            yield model.problem(kind, message)
        if values:
            yield model.problem(
                kind, f"{kind} has {', '.join(values)}; it takes a data_type only. Remove it."
            )
    elif len(values) != 1:
        yield model.problem(kind, f"{kind} has {len(values)} of {', '.join(VALUES)}; expected one of them.")
    elif (count := sum(values.values())) != 2:
        message = f"{kind} has {count} values of {next(iter(values))}; expected 2, for false and for true."
        yield model.problem(kind, message)


def check_state(model: ModelFolder, state: ModelSequenceBatching.State) -> Iterator[str]:
    """The initial state fits the state."""
    name, initial_states = state.input_name, state.initial_state
    if len(initial_states) > 1:
        message = f"state {name!r} has {len(initial_states)} of initial_state; expected one at most."
        yield model.problem("initial_state", message)
    for initial in initial_states:
        if initial.data_type != state.data_type:
            yield model.problem(
                "initial_state", f"the initial_state of {name!r} has another data_type. Make them equal."
            )
        if not initial.name:
            yield model.problem("initial_state", f"the initial_state of {name!r} has no name. Give it one.")
        if not fits(initial.dims, state.dims):
            yield model.problem(
                "initial_state",
                f"the initial_state of {name!r} has dims {list(initial.dims)}, the state {list(state.dims)}. Give one "
                f"size for each dim of the state.",
            )
        kind, file = initial.WhichOneof("state_data"), initial.data_file
        yield from check_data(model, "initial_state", kind, file, initial.data_type, initial.dims)


def fits(dims: Sequence[int], other_dims: Sequence[int]) -> bool:
    """Whether `dims` are sizes of a tensor whose dims may be of any size, -1."""
    pairs = zip(dims, other_dims, strict=False)
    return len(dims) == len(other_dims) and all(dim > -1 and other in (dim, -1) for dim, other in pairs)
