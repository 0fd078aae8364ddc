"""Code that runs inside Triton's Python processes, shared by the models of `engineroom.triton`'s templates.

`perf_metrics`, `sender` and `words` import only NumPy and Triton's own module: importing PyTorch would add three
seconds to each start.
"""
