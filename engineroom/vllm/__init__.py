"""Lesson 01: the real vLLM as a server; its command line, its clients and its metrics."""

from engineroom.load.client import Trace, client, fire, stream
from engineroom.metrics.prometheus import Metrics, Watch, scrape
from engineroom.vllm.command import command, executable, on_h100, serve

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
