"""OpenVINO GenAI: in .venv/openvino, not in the course's environment."""

from typing import Any

def __getattr__(name: str) -> Any: ...
