"""Hugging Face -> TensorRT-LLM checkpoint, on any machine: convert, inspect, diff, join.

What is written equals what NVIDIA's tools write, tensor for tensor; the tests compare it with NVIDIA ModelOpt's export.
"""

from labs.checkpoint.checkpoint import Checkpoint, join, open_checkpoint
from labs.checkpoint.config import Model
from labs.checkpoint.convert import convert
from labs.checkpoint.diff import Difference, diff
from labs.checkpoint.errors import CheckpointError
from labs.checkpoint.forward import Forward
from labs.checkpoint.inspect import inspect
from labs.checkpoint.mapping import Mapping
from labs.checkpoint.plan import Layout, plan
from labs.checkpoint.planted import fuse_then_cut
from labs.checkpoint.reference import reference_logits
from labs.checkpoint.rope import frequencies
from labs.checkpoint.source import open_model
from labs.checkpoint.tensorfile import load

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Difference",
    "Forward",
    "Layout",
    "Mapping",
    "Model",
    "convert",
    "diff",
    "frequencies",
    "fuse_then_cut",
    "inspect",
    "join",
    "load",
    "open_checkpoint",
    "open_model",
    "plan",
    "reference_logits",
]
