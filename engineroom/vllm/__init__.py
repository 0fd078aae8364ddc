"""Lesson 01: the real vLLM as a server; its command line, its clients and its metrics."""

from labs.serving.client import Trace, client, fire, stream
from labs.serving.metrics import Metrics, Watch, scrape
from labs.serving.vllm import command, executable, on_h100, serve

__all__ = [
    "Metrics",
    "Trace",
    "Watch",
    "client",
    "command",
    "executable",
    "fire",
    "on_h100",
    "scrape",
    "serve",
    "stream",
]
