"""The reference of flags is consistent, and the check finds what is wrong with a set of flags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engineroom import trtllm
from engineroom.trtllm.flags import FlagError, check, tools
from engineroom.trtllm.values import convert_value

NAMES = sorted(tools())
OTHER_PROGRAMS = {  # of docker, mpirun, bash and python
    "--rm", "--gpus", "--shm-size", "--entrypoint", "--allow-run-as-root", "--rcfile", "--init-file",
    "--check-hash-based-pycs", "--help",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_given_once(name: str) -> None:
    tool = tools()[name]
    off_names = [flag.off for flag in tool.flags.values() if flag.off]
    names = [name for first_name, flag in tool.flags.items() for name in (first_name, *flag.aliases)]
    assert len(names + off_names) == len({*names, *off_names})
    assert all(map(tool.find, names))


@pytest.mark.parametrize("name", NAMES)
def test_a_default_is_a_value_that_the_flag_takes(name: str) -> None:
    for first_name, flag in tools()[name].flags.items():
        assert flag.help, first_name
        if flag.default is not None and not flag.repeat:
            assert convert_value(first_name, flag, flag.default) == flag.default, first_name


@pytest.mark.parametrize("name", NAMES)
def test_removed_flags_do_not_exist_and_their_replacements_do(name: str) -> None:
    tool = tools()[name]
    for removed, (replacement, why) in tool.removed.items():
        longer = [flag_name for flag_name in tool.flags if flag_name.startswith(removed)]
        assert tool.find(removed) is None
        assert tool.parser == "click" or len(longer) != 1, f"argparse takes {removed} for {longer}"
        assert why
        assert not replacement or tool.find(replacement), (removed, replacement)


@pytest.mark.parametrize("name", NAMES)
def test_rules_name_flags_that_exist(name: str) -> None:
    tool = tools()[name]
    in_rules = {flag_name for rule in tool.rules for flag_name in (*rule.when, *rule.needs, *rule.forbids)}
    in_groups = {flag_name for group in tool.one_of for flag_name in group}
    assert in_rules | in_groups <= tool.flags.keys()


def test_every_tool_names_its_source_with_a_commit() -> None:
    for tool in tools().values():
        assert tool.sources
        assert all(re.fullmatch(r"[\w/]+\.py@[0-9a-f]{40}", source) for source in tool.sources)


def test_flags_in_our_texts_exist() -> None:
    known = set(OTHER_PROGRAMS)
    for tool in tools().values():
        known |= {*tool.flags, *tool.removed}
        known |= {alias for flag in tool.flags.values() for alias in flag.aliases}
    for file in Path(trtllm.__file__).parent.glob("*.py"):
        assert set(re.findall(r"--[a-z][\w-]+", file.read_text())) <= known, file.name


@pytest.mark.parametrize(
    ("name", "flag", "default"),
    [
        ("build", "--max_batch_size", 2048),
        ("build", "--max_num_tokens", 8192),
        ("build", "--tokens_per_block", 32),
        ("serve", "--backend", "pytorch"),
        ("serve", "--host", "localhost"),
        ("quantize", "--qformat", "full_prec"),
        ("convert llama", "--dtype", "auto"),
        ("bench throughput", "--concurrency", -1),
    ],
)
def test_defaults_that_lessons_mention(name: str, flag: str, default: object) -> None:
    assert tools()[name].flags[flag].default == default


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("build", {"max_seq_len": 8}, "--checkpoint_dir or --model_config is required"),
        ("convert qwen", {}, "--model_dir is required"),
        ("run", {}, "--max_output_len is required"),
        ("convert llama", {"tp_size": "two"}, "--tp_size takes a value of type int, not 'two'"),
        ("convert llama", {"tp_size": True}, "--tp_size takes a value of type int, not True"),
        ("convert llama", {"use_fp8": "yes"}, "--use_fp8 is a switch"),
        ("convert llama", {"dtype": "fp16"}, "one of auto, float16, bfloat16, float32, not 'fp16'"),
        ("quantize", {"qformat": "int8sq", "model_dir": "m"}, "Did you mean int8_sq?"),
        ("bench throughput", {"target_input_len": 0}, "--target_input_len takes 1 or more"),
        ("run", {"max_output_len": 1, "stop_words": "x"}, "--stop_words takes lists of words, not 'x'"),
        ("run", {"max_output_len": 1, "stop_words": []}, "--stop_words takes lists of words, not []"),
        ("run", {"max_output_len": 1, "lora_dir": []}, "--lora_dir takes lists of words, not []"),
        ("run", {"max_output_len": 1, "input_text": "-x"}, "would read '-x' as a flag"),
        ("serve", {"tp_size": 1, "tensor_parallel_size": 1}, "--tensor_parallel_size is given twice"),
        ("convert llama", {"weight_only_precision": "int4"}, "needs --use_weight_only"),
        ("build", {"checkpoint_dir": "c", "checkpoint_dri": "c"}, "Did you mean --checkpoint_dir?"),
        ("build", {"checkpoint_dir": "c", "xyzzy": 1}, "See `engineroom trtllm flags`"),
    ],
)
def test_the_error_says_what_is_wrong(name: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(FlagError, match=re.escape(message)):
        check(name, args)


def test_the_error_has_every_problem() -> None:
    with pytest.raises(FlagError) as caught:
        check("build", {"max_output_len": 5, "workers": "x"})
    assert len(caught.value.problems) == 3


def test_values_come_back_typed() -> None:
    args = {
        "checkpoint_dir": Path("c"),
        "workers": "2",
        "use_fused_mlp": False,
        "strip_plan": False,
        "lora_dir": None,
    }
    assert check("build", args) == {"--checkpoint_dir": "c", "--workers": 2, "--use_fused_mlp": "disable"}
