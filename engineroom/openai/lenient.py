"""Numbers and flags in a request that are written as another type, as far as vLLM accepts them too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, eq=False)
class Lenient:
    """Annotates a field of a strict model: it also accepts values like 5.0 and "5" for the integer 5.

    Values of the `types` are converted to `target`, where pydantic can do it without a loss. Any other value is left to
    the field's own check. `json_schema` describes values that are accepted beside those of the own schema.
    """

    target: type[int] | type[float] | type[bool]
    types: tuple[type, ...]
    json_schema: JsonSchemaValue | None

    def convert(self, value: object) -> object:
        if type(value) not in self.types:
            return value
        try:
            return TypeAdapter(self.target).validate_python(value)
        except ValidationError:
            return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.convert, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        own_schema = handler(schema)
        if own_schema.get("const") is False:
            return {"enum": [False, 0, "false"]}
        minimum = own_schema.get("minimum")
        if minimum is not None and minimum == own_schema.get("maximum"):  # one value only
            return {"anyOf": [own_schema, {"enum": [str(minimum)]}]}
        return {"anyOf": [own_schema, self.json_schema]} if self.json_schema else own_schema


INTEGER = Lenient(int, (str, float), {"type": "string", "pattern": r"^[1-9][0-9]?$"})
INTEGRAL_FLOAT = Lenient(int, (float,), None)  # JSON Schema counts 5.0 among the integers
NUMBER = Lenient(float, (str,), {"type": "string", "pattern": r"^(1|0\.[1-9][0-9]*)$"})
FLAG = Lenient(bool, (str, int, float), {"enum": [0, 1, "true", "false"]})
