"""Triton kernels for a GPU, as custom operators that torch.export keeps and AOTInductor compiles into the engine.

Imported only where there is a GPU.
"""

from labs.engine.kernels.attention import paged_attention, rotate_and_store
from labs.engine.kernels.products import linear, qkv

__all__ = ["linear", "paged_attention", "qkv", "rotate_and_store"]
