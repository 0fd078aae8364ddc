"""Lesson 10: an engine behind Triton, with the model repository of NVIDIA's TensorRT-LLM backend."""

from engineroom.triton.check import check
from engineroom.triton.deployment import Deployment, DeploymentError, describe
from engineroom.triton.render import render
from engineroom.triton.server import Triton, serve

__all__ = ["Deployment", "DeploymentError", "Triton", "check", "describe", "render", "serve"]
