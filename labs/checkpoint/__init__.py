"""Hugging Face -> TensorRT-LLM checkpoint, on any machine: convert, inspect, diff, join.

What is written equals what NVIDIA's tools write, tensor for tensor; the tests compare it with NVIDIA ModelOpt's export.
"""

from labs.checkpoint.checkpoint import Checkpoint, join, open_checkpoint
from labs.checkpoint.config import Model
from labs.checkpoint.convert import convert
from labs.checkpoint.errors import CheckpointError
from labs.checkpoint.mapping import Mapping
from labs.checkpoint.plan import Layout, plan
from labs.checkpoint.source import open_model

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Layout",
    "Mapping",
    "Model",
    "convert",
    "join",
    "open_checkpoint",
    "open_model",
    "plan",
]
