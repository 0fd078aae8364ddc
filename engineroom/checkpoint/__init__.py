"""Hugging Face -> TensorRT-LLM checkpoint, on any machine: convert, inspect, diff, join.

What is written equals what NVIDIA's tools write, tensor for tensor; the tests compare it with NVIDIA ModelOpt's export.
"""

from engineroom.checkpoint.checkpoint import Checkpoint, join, open_checkpoint
from engineroom.checkpoint.config import ModelConfig
from engineroom.checkpoint.convert import convert
from engineroom.checkpoint.diff import Difference, diff
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.forward import Forward
from engineroom.checkpoint.inspect import inspect
from engineroom.checkpoint.mapping import Mapping
from engineroom.checkpoint.plan import Layout, plan
from engineroom.checkpoint.reference import reference_logits
from engineroom.checkpoint.rope import frequencies
from engineroom.checkpoint.source import open_model
from engineroom.checkpoint.tensorfile import load

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Difference",
    "Forward",
    "Layout",
    "Mapping",
    "ModelConfig",
    "convert",
    "diff",
    "frequencies",
    "inspect",
    "join",
    "load",
    "open_checkpoint",
    "open_model",
    "plan",
    "reference_logits",
]
