"""Lesson 10: an engine behind Triton, with the model repository of NVIDIA's TensorRT-LLM backend."""

from labs.triton.check import check
from labs.triton.deployment import Deployment, DeploymentError, describe
from labs.triton.render import render
from labs.triton.server import Triton, serve

__all__ = ["Deployment", "DeploymentError", "Triton", "check", "describe", "render", "serve"]
