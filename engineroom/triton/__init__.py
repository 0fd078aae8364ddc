"""Serve an engine with Triton, from the model repository of NVIDIA's TensorRT-LLM backend.

This package imports nothing: Triton's Python processes import `engineroom.triton.backend`, and each import costs time.
"""
