"""Tools of TensorRT-LLM's releases of 2023 and early 2024, which old instructions still name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

CONVERT = "convert_checkpoint.py, then build with trtllm-build"
SCRIPTS = {"build.py", "hf_llama_convert.py"}
CONVERTERS = re.compile(r"(hf_\w+|nemo_ckpt|weight)_convert\.py|convert_hf_\w+\.py")
FAMILIES = ("llama", "gpt", "qwen", "falcon", "baichuan", "chatglm", "bloom", "opt", "mpt", "gptj", "gptneox")
# flags of the build scripts of 2023, by which a build.py without its folder is known
BUILD_FLAGS = [
    "--model_dir",
    "--ft_model_dir",
    "--meta_ckpt_dir",
    "--use_gpt_attention_plugin",
    "--use_gemm_plugin",
    "--remove_input_padding",
    "--use_inflight_batching",
    "--enable_context_fmha",
    "--paged_kv_cache",
    "--use_weight_only",
]


def problem(name: str, words: Sequence[str]) -> str | None:
    """The sentence about a script that later releases do not have; None for every other program.

    ``words`` are the words of the command, the script's path first.
    """
    if CONVERTERS.fullmatch(name):
        return f"a tool of the releases of 2023, gone since 2024. Convert with {CONVERT}."
    folder = os.path.basename(os.path.dirname(words[0])) if words else ""
    flags = {word.partition("=")[0] for word in words[1:]}
    if name == "build.py" and (folder in FAMILIES or flags & {*BUILD_FLAGS}):
        return f"a tool of the releases of 2023, gone since 2024. Convert the model with {CONVERT}."
    if name == "quantize.py" and folder in FAMILIES:
        return "a script of 2023 in that folder. Since 2024 it is examples/quantization/quantize.py."
    return None
