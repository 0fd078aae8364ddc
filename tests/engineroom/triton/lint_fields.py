"""Configurations with one field each of those that config.pbtxt can have, and with each of a few values of its type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.engineroom.triton.lint_configs import BASE

DEPTH = 4  # messages within messages
# An ensemble has tests of its own, CUDA's settings have no effect here, and a parameter can have any name and value.
LEFT_OUT = ("name=", "ensemble_scheduling.", "optimization.cuda.", "parameters")
VALUES: dict[int, list[Any]] = {
    FieldDescriptor.TYPE_BOOL: [True, False],
    FieldDescriptor.TYPE_STRING: ["", "x"],
    FieldDescriptor.TYPE_BYTES: [b"", b"x"],
    FieldDescriptor.TYPE_FLOAT: [0.0, 2.0, -1.0],
    FieldDescriptor.TYPE_DOUBLE: [0.0, 2.0, -1.0],
    FieldDescriptor.TYPE_UINT32: [0, 1, 7],
    FieldDescriptor.TYPE_UINT64: [0, 1, 7],
    FieldDescriptor.TYPE_INT32: [0, 1, 7, -1],
    FieldDescriptor.TYPE_INT64: [0, 1, 7, -1],
}
SetField = Callable[[Any], None]


def values(field: FieldDescriptor) -> list[Any]:
    if field.enum_type:
        return [*(value.number for value in field.enum_type.values), 99]
    return VALUES[field.type]


def field_edits(message: Descriptor, depth: int = DEPTH) -> Iterator[tuple[str, SetField]]:
    """(name, function that sets a field of a message), for each field and each of its values."""
    for field in message.fields:
        if field.message_type is None:
            for value in values(field):
                yield f"{field.name}={value!r}", setter(field, value)
        else:
            enter = entry(field)
            yield field.name, enter
            inner = field.message_type
            if inner.GetOptions().map_entry:
                inner = inner.fields_by_name["value"].message_type
            if inner is not None and depth:
                for name, set_field in field_edits(inner, depth - 1):
                    yield (
                        f"{field.name}.{name}",
                        lambda config, set_=set_field, enter=enter: set_(enter(config)),
                    )


def setter(field: FieldDescriptor, value: Any) -> SetField:
    def set_field(config: Any) -> None:
        if field.is_repeated:
            getattr(config, field.name).append(value)
        else:
            setattr(config, field.name, value)

    return set_field


def entry(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Returns a function that adds a field that is a message, and returns the message."""

    def enter(config: Any) -> Any:
        container = getattr(config, field.name)
        if field.message_type.GetOptions().map_entry:
            key = "x" if field.message_type.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING else 1
            return container[key]
        if not field.is_repeated:
            container.SetInParent()
            return container
        return container[0] if container else container.add()

    return enter


def edited_field(set_field: SetField) -> str:
    config = text_format.Parse(BASE, ModelConfig())
    set_field(config)
    return text_format.MessageToString(config)


FIELD_EDITS = {
    name: edited_field(set_field)
    for name, set_field in field_edits(ModelConfig.DESCRIPTOR)
    if not name.startswith(LEFT_OUT)
}
