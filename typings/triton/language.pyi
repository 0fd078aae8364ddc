"""Triton, the kernel language: in .venv/kernels and on a GPU, not in the course's environment."""

from typing import Any

def __getattr__(name: str) -> Any: ...
