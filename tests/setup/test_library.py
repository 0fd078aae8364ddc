"""The library alone: its wheel in an empty environment outside the checkout imports, converts, builds and generates."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import bootstrap
from bootstrap import PACKAGES

COURSE_PACKAGES = bootstrap.VENV / PACKAGES
PARTS = "engineroom.engine, engineroom.checkpoint, engineroom.quality"
OUTSIDE = f"""
import importlib.util
import {PARTS}
print(engineroom.__file__)
for name in ("labs", "tools", "tests", "solutions"):
    assert importlib.util.find_spec(name) is None, name + " is on the path"
"""
MODEL = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, vocab_size=64)
config = LlamaConfig(**sizes, max_position_embeddings=64, bos_token_id=0, eos_token_id=1)
LlamaForCausalLM(config).bfloat16().save_pretrained(sys.argv[1])
"""
GENERATE = """
import sys
from engineroom.engine import Executor, SamplingParams, open_engine
executor = Executor(open_engine(sys.argv[1]))
[token_ids] = executor.generate([[5, 6, 7]], SamplingParams(max_tokens=4))
print(*token_ids)
"""


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an empty environment; return its bin folder.

    The environment imports dependencies from the course's packages. Python ignores .pth files in a folder that a
    .pth file adds, so course.pth there does not put the checkout on the path.
    """
    folder = tmp_path_factory.mktemp("library") / "environment"
    uv = bootstrap.find_uv()
    run(*uv, "venv", "--python", str(bootstrap.PYTHON), str(folder), folder=folder.parent)
    python = str(folder / "bin" / "python")
    run(*uv, "pip", "install", "--offline", "--no-deps", "--python", python, str(wheel), folder=folder.parent)
    (folder / PACKAGES / "dependencies.pth").write_text(f"{COURSE_PACKAGES}\n")
    return folder / "bin"


def run(*command: str | Path, folder: Path) -> str:
    """Run a command outside the checkout and return what it prints."""
    names = ("PYTHONPATH", "ENGINEROOM_BUILDS", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["ENGINEROOM_HOME"] = str(folder / "home")
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_it_imports_without_the_course(bin_folder: Path, tmp_path: Path) -> None:
    path = Path(run(bin_folder / "python", "-c", OUTSIDE, folder=tmp_path).strip())
    assert path.is_relative_to(bin_folder.parent)


def test_its_command_has_the_librarys_commands_alone(bin_folder: Path, tmp_path: Path) -> None:
    text = run(bin_folder / "engineroom", "--help", folder=tmp_path)
    names = {line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.strip()}
    assert {"checkpoint", "build", "serve", "triton"} <= names
    assert names.isdisjoint({"lab", "run", "gates", "lessons", "timing"})


@pytest.mark.timeout(600)
def test_it_converts_a_checkpoint_builds_an_engine_and_generates(bin_folder: Path, tmp_path: Path) -> None:
    engineroom, python = bin_folder / "engineroom", bin_folder / "python"
    run(python, "-c", MODEL, "model", folder=tmp_path)
    run(
        engineroom,
        "checkpoint",
        "convert",
        "--model_dir",
        "model",
        "--output_dir",
        "checkpoint",
        folder=tmp_path,
    )
    limits = [
        "--max_batch_size",
        "2",
        "--max_input_len",
        "16",
        "--max_seq_len",
        "32",
        "--max_num_tokens",
        "32",
    ]
    build = ["build", "--checkpoint_dir", "checkpoint", "--output_dir", "engine", *limits]
    run(engineroom, *build, folder=tmp_path)
    assert "max_seq_len" in run(engineroom, "inspect", "engine", folder=tmp_path)
    token_ids = run(python, "-c", GENERATE, "engine", folder=tmp_path).split()
    assert len(token_ids) == 4 and all(0 <= int(token_id) < 64 for token_id in token_ids)
