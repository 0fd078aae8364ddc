"""Convert Hugging Face models to TensorRT-LLM checkpoints, on any machine; inspect, compare and join checkpoints.

The files equal those of NVIDIA's tools, tensor for tensor; the tests compare them with NVIDIA ModelOpt's export.
"""

from engineroom.checkpoint.checkpoint import Checkpoint, join, open_checkpoint
from engineroom.checkpoint.config import ModelConfig
from engineroom.checkpoint.convert import convert
from engineroom.checkpoint.diff import Difference, diff
from engineroom.checkpoint.errors import CheckpointError
from engineroom.checkpoint.inspect import inspect
from engineroom.checkpoint.mapping import Mapping, Sharding
from engineroom.checkpoint.plan import RankTensor, SourceSlice, plan
from engineroom.checkpoint.reference import reference_logits
from engineroom.checkpoint.sharded_model import ShardedModel
from engineroom.checkpoint.source import HuggingFaceModel, open_model
from engineroom.checkpoint.tensorfile import StoredTensor, load

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Difference",
    "HuggingFaceModel",
    "Mapping",
    "ModelConfig",
    "RankTensor",
    "ShardedModel",
    "Sharding",
    "SourceSlice",
    "StoredTensor",
    "convert",
    "diff",
    "inspect",
    "join",
    "load",
    "open_checkpoint",
    "open_model",
    "plan",
    "reference_logits",
]
