"""Kernels of ours as custom operators that torch.export keeps and AOTInductor compiles into the engine.

`products` and `attention` are for a GPU, in Triton, and imported only where there is one; `cpu` is for a CPU, in C++.
"""
