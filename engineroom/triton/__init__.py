"""An engine behind Triton, with the model repository of NVIDIA's TensorRT-LLM backend.

Nothing is imported here: Triton's Python processes import `engineroom.triton.backend`, and each import costs them time.
"""
