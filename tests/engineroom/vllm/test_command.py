"""The command line of vLLM: for this machine, for an H100, and for names that are not models."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engineroom import vllm
from engineroom.kit.machine import Machine, machine
from engineroom.vllm import model
from engineroom.vllm.command import H100

CPU = machine().model_copy(update={"gpus": [], "isa": ["avx2"]})
CPU_BF16 = CPU.model_copy(update={"isa": ["avx2", "avx512_bf16"]})
GPU = CPU.model_copy(update={"gpus": [H100]})
TURING = CPU.model_copy(update={"gpus": [H100.model_copy(update={"compute_capability": "7.5"})]})


def test_flags_are_vllms_own() -> None:
    help_text = subprocess.run(
        [vllm.executable(), "serve", "--help=all"], capture_output=True, text=True
    ).stdout
    line = vllm.command("course", target=CPU, max_num_batched_tokens=512, kv_cache_dtype="auto")
    line += vllm.command("course", target=GPU, gpu_memory_utilization=0.9)
    flags = {word for word in line if word.startswith("--")}
    assert len(flags) > 8
    assert not [flag for flag in flags if flag not in help_text]


def test_a_none_leaves_a_default_out_and_true_is_a_bare_flag() -> None:
    line = vllm.command("course", target=CPU, max_num_seqs=None, enable_lora=True)
    assert "--max-num-seqs" not in line
    assert line[-1] == "--enable-lora"


@pytest.mark.parametrize(
    ("target", "expected"),
    [(CPU, "float32"), (CPU_BF16, "bfloat16"), (GPU, "bfloat16"), (TURING, "float16")],
)
def test_precision_follows_the_processor(target: Machine, expected: str) -> None:
    assert model.dtype(target) == expected


def test_a_hub_id_is_passed_on_and_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert model.locate("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"
    for name in ("nothing", str(tmp_path), "./Qwen/Qwen2.5", "a/b/c"):
        with pytest.raises(model.ModelNotFound, match=r"config\.json does not exist"):
            model.locate(name)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "the model 'course' comes with a checkout of the course, not with the library"),
        (["pyproject.toml"], "take the folder models/course from git"),
        (["pyproject.toml", "models/course/config.json"], "models/course"),
    ],
)
def test_the_course_model_is_the_checkout_s(tmp_path: Path, files: list[str], expected: str) -> None:
    """In a copy of the library: installed alone, in a checkout without models, and in a whole checkout."""
    shutil.copytree(Path(vllm.__file__).parents[1], tmp_path / "engineroom")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    script = "from engineroom.vllm.model import locate; print(locate('course'))"
    line = [sys.executable, "-c", script]
    result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    output = (result.stdout + result.stderr).lower()
    assert expected in output and str(tmp_path) in output
    assert ("modelnotfound" in output) == (result.returncode != 0) == (len(files) < 2)


def test_on_h100_is_a_shell_command() -> None:
    line = vllm.on_h100("Qwen/Qwen2.5-7B-Instruct", max_model_len=8192)
    assert line.startswith("vllm serve Qwen/Qwen2.5-7B-Instruct ")
    assert "--max-model-len 8192" in line
    assert "--enforce-eager" not in line
