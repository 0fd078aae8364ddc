"""TensorRT-LLM 1.2.1: in NVIDIA's container, not in the course's environment."""

from typing import Any

def __getattr__(name: str) -> Any: ...
