"""Mistakes that people make with the real tools, from their issue threads: the error names each remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from engineroom import trtllm
from engineroom.trtllm.__main__ import main
from engineroom.trtllm.flags import FlagError
from engineroom.trtllm.parser import parse

MISTAKES = [
    ("trtllm-build --checkpoint_dir c --max_output_len 64", "Use --max_seq_len"),
    ("trtllm-build --checkpoint_dir c --dtype float16", "convert_checkpoint.py or quantize.py"),
    ("trtllm-build --checkpoint_dir c --tp_size 2", "give --tp_size and --pp_size to convert_checkpoint.py"),
    ("trtllm-build --checkpoint_dir c --multi_block_mode enable", "run.py --multi_block_mode"),
    ("trtllm-build --checkpoint_dir c --auto_parallel 2", "removed in 1.2"),
    (
        "trtllm-build --checkpoint_dir c --use_fused_mlp",
        "--use_fused_mlp needs a value: one of enable, disable",
    ),
    ("trtllm-build --checkpoint_dir c --streamingllm enable", "ask for it in the request"),
    ("trtllm-build --checkpoint_dir c --strip_plan enable", "'enable' belongs to no flag"),
    ("trtllm-build --checkpoint_dir c --build_config b.json --max_batch_size 8", "excludes --max_batch_size"),
    ("trtllm-build --model_dir m", "Use --checkpoint_dir"),
    ("trtllm-build --checkpoint_dir c --max_model_len 64", "Use --max_seq_len"),
    ("trtllm-serve --engine_dir e", "the engine directory is the first argument"),
    ("trtllm-serve e --backend tensorrt --tp 8", "Use --tp_size"),
    ("trtllm-serve serve e --kv_cache_free_gpu_mem_fraction 0.5", "Use --kv_cache_free_gpu_memory_fraction"),
    ("trtllm-serve disaggregated -c x", "only serve"),
    ("trtllm-bench throughput --model m --dataset d", "before the subcommand"),
    ("trtllm-bench --model m throughput --tp_size 2", "Use --tp"),
    ("trtllm-bench --model m latency --engine_dir e --dataset d", "needs --backend tensorrt"),
    (
        "trtllm-bench --model m throughput --engine_dir e --backend tensorrt --max_seq_len 8",
        "has its own limit",
    ),
    ("trtllm-bench --model m build --max_seq_len 8", "throughput, latency"),
    ("python quantize.py --model_dir m --qformat int8_smoothquant", "int8_sq"),
    ("python quantize.py --model_dir m --qformat fp8 --fp8_kv_cache", "Use --kv_cache_dtype"),
    ("python quantize.py --model_dir m --kv_cache_dtype", "one of int8, fp8"),
    (
        "python examples/models/core/qwen/convert_checkpoint.py --model_dir m --use_fp8",
        "quantize.py --qformat",
    ),
    ("python examples/gpt/convert_checkpoint.py --model_dir m", "only those of llama and qwen"),
    ("python3 run.py --engine_dir e --max_new_tokens 8", "Use --max_output_len"),
    ("python3 launch_triton_server.py --model-repository r", "Use --model_repo"),
    ("vllm serve m", "none of the tools known here"),
]


@pytest.mark.parametrize(("line", "remedy"), MISTAKES)
def test_the_remedy_is_named(line: str, remedy: str) -> None:
    with pytest.raises(FlagError, match=f"(?i){re.escape(remedy)}") as caught:
        parse(line)
    assert len(caught.value.problems) <= 2  # the mistake, and a flag that is missing because of it


@pytest.mark.parametrize(
    "line",
    [
        "trtllm-build --checkpoint_dir c --max_batch 8 --max_input=64",  # argparse takes an abbreviation of one flag
        "trtllm-build \\\n  --checkpoint_dir c \\\n  --max_decoder_seq_len 64",
        "trtllm-serve e --backend trt --tokenizer t --host 0.0.0.0 --max_batch_size 8 --max_seq_len 2048",
        "mpirun -n 2 --allow-run-as-root python3 ../run.py --engine_dir e --max_output_len 8 --top_p 0.9",
        "python convert_checkpoint.py --model_dir m -sq 0.5 --per_token --per_channel --output_dir c",
        "python convert_checkpoint.py --model_dir m --use_weight_only --weight_only_precision --output_dir c",
        "trtllm-bench -m q --model_path m throughput --dataset d --concurrency -1 --streaming",
    ],
)
def test_correct_lines_pass_and_read_back_the_same(line: str) -> None:
    command = parse(line)
    assert parse(str(command)) == command


def test_click_takes_no_abbreviations() -> None:
    with pytest.raises(FlagError, match=r"Did you mean .*--max_batch_size"):
        parse("trtllm-serve m --max_batch 8")


def test_an_engine_needs_the_backend_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_config": {}, "build_config": {}}))
    with pytest.raises(FlagError, match="is an engine: it needs --backend tensorrt"):
        trtllm.serve(tmp_path)
    assert trtllm.serve(tmp_path, backend="tensorrt").argv[2] == str(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert trtllm.serve(tmp_path)


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        (
            ["check", "--", "trtllm-build", "--checkpoint_dir", "c"],
            0,
            "trtllm-build --checkpoint_dir c",
            "not run",
        ),
        (["check", "trtllm-build --checkpoint_dir c --max_output_len 5"], 1, "", "Use --max_seq_len"),
        (["convert", "qwen", "--model_dir", "m"], 0, "qwen/convert_checkpoint.py --model_dir m", "not run"),
        (["convert", "--model_dir", "m"], 0, "llama/convert_checkpoint.py --model_dir m", "not run"),
        (["serve", "m"], 0, "trtllm-serve serve m", "not run"),
        (["flags", "build"], 0, "--gemm_plugin auto|float16", ""),
        (["flags", "bild"], 1, "", "no tool 'bild'"),
        (["bild"], 2, "", "engineroom trtllm"),
        ([], 2, "", "engineroom trtllm"),
    ],
)
def test_the_command_in_a_terminal(
    capsys: pytest.CaptureFixture, words: list[str], status: int, out: str, err: str
) -> None:
    assert main(words) == status
    printed = capsys.readouterr()
    assert out in printed.out.replace("\\\n    ", "")
    assert err in printed.err
    assert bool(out) == bool(printed.out)
