"""Inside Triton's Python processes: what the models of `engineroom.triton`'s templates share.

`sender` and `words` import NumPy and Triton's own module only: with PyTorch a process needs three seconds more.
"""
