"""What Triton Inference Server gives a Python model; it exists only in a server's process."""

from typing import Any

def __getattr__(name: str) -> Any: ...
