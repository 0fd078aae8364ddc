"""The command line of vLLM: for this machine, for an H100, and for models that are none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engineroom import vllm
from engineroom.kit.machine import machine
from engineroom.vllm import model
from engineroom.vllm.command import H100

CPU = machine().model_copy(update={"gpus": [], "isa": ["avx2"]})


def test_flags_are_vllms_own() -> None:
    help_text = subprocess.run(
        [vllm.executable(), "serve", "--help=all"], capture_output=True, text=True
    ).stdout
    line = vllm.command("course", here=CPU, max_num_batched_tokens=512, kv_cache_dtype="auto")
    line += vllm.command("course", here=CPU.model_copy(update={"gpus": [H100]}), gpu_memory_utilization=0.9)
    flags = {part for part in line if part.startswith("--")}
    assert len(flags) > 8
    assert not [flag for flag in flags if flag not in help_text]


def test_a_none_leaves_a_default_out_and_true_is_a_bare_flag() -> None:
    line = vllm.command("course", here=CPU, max_num_seqs=None, enable_lora=True)
    assert "--max-num-seqs" not in line
    assert line[-1] == "--enable-lora"


@pytest.mark.parametrize(
    ("here", "want"),
    [
        (CPU, "float32"),
        (CPU.model_copy(update={"isa": ["avx2", "avx512_bf16"]}), "bfloat16"),
        (CPU.model_copy(update={"gpus": [H100]}), "bfloat16"),
        (CPU.model_copy(update={"gpus": [H100.model_copy(update={"compute_capability": "7.5"})]}), "float16"),
    ],
)
def test_precision_follows_the_processor(here: machine, want: str) -> None:
    assert model.dtype(here) == want


def test_a_hub_id_is_passed_on_and_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert model.locate("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"
    for wrong in ("nothing", str(tmp_path), "./Qwen/Qwen2.5", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
            model.locate(wrong)


def test_on_h100_is_a_shell_command() -> None:
    line = vllm.on_h100("Qwen/Qwen2.5-7B-Instruct", max_model_len=8192)
    assert line.startswith("vllm serve Qwen/Qwen2.5-7B-Instruct ")
    assert "--max-model-len 8192" in line
    assert "--enforce-eager" not in line
