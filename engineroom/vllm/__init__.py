"""vLLM: its command line for this machine, its server, its own benchmark."""

from engineroom.vllm.bench import bench_serve
from engineroom.vllm.command import command, executable, on_h100, serve

__all__ = ["bench_serve", "command", "executable", "on_h100", "serve"]
