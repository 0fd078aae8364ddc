"""TensorRT-LLM's tools: command lines for 1.2.1, the last stable release that builds engines.

The lines are checked against a transcription of the tools' source; we never ran them. A lesson shows
``trtllm.build(checkpoint_dir="ckpt", max_batch_size=8)``, and runs its ``.argv`` where it is ``.available()``.
"""

from engineroom.trtllm.commands import (
    Command,
    bench,
    build,
    container,
    convert,
    installed_version,
    launch,
    quantize,
    run,
    serve,
)
from engineroom.trtllm.flags import FlagError, check, tools
from engineroom.trtllm.parser import parse, parse_script

__all__ = [
    "Command",
    "FlagError",
    "bench",
    "build",
    "check",
    "container",
    "convert",
    "installed_version",
    "launch",
    "parse",
    "parse_script",
    "quantize",
    "run",
    "serve",
    "tools",
]
