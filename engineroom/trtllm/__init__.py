"""The real TensorRT-LLM tools: command lines for 1.2.1, the last stable release that builds engines.

The lines are checked against a transcription of the tools' source and never run by us. A lesson shows
``trtllm.build(checkpoint_dir="ckpt", max_batch_size=8)`` as it is, and runs ``.argv`` where ``.available()``.
"""

from engineroom.trtllm.commands import (
    Command,
    bench,
    build,
    container,
    convert,
    here,
    launch,
    quantize,
    run,
    serve,
)
from engineroom.trtllm.flags import FlagError, check, tools
from engineroom.trtllm.pasted import parse

__all__ = [
    "Command",
    "FlagError",
    "bench",
    "build",
    "check",
    "container",
    "convert",
    "here",
    "launch",
    "parse",
    "quantize",
    "run",
    "serve",
    "tools",
]
