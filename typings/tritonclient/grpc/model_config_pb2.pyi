"""Triton's model configuration: protobuf makes these classes when the module is imported."""

from typing import Any

def __getattr__(name: str) -> Any: ...
