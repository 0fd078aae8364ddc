"""Our kernels as custom operators, which torch.export keeps and AOTInductor compiles into the engine.

`cpu` is for a CPU, in C++. `products` and `attention` are for a GPU, in Triton; layers.py imports them only for a GPU.
"""
