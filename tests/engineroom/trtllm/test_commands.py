"""A command has the flags that it was given, for a shell and for subprocess, and reads back the same."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineroom import trtllm
from engineroom.trtllm.arguments import split
from engineroom.trtllm.commands import command
from engineroom.trtllm.flags import FlagError, check, tools
from engineroom.trtllm.parser import parse
from engineroom.trtllm.values import Flag

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NUMBERS = {"int": st.integers(-1, 10**6), "float": st.floats(0, 10, allow_nan=False)}
HARD = ["throughput", "a b", "it's", '"q"', "$HOME", "`x`", "\\", "", "a\nb", "-x", "*", "é", "a=b"]


def value_of(flag: Flag) -> st.SearchStrategy:
    """Any value that the flag takes."""
    if flag.type == "switch":
        return st.booleans() if flag.off else st.just(True)
    values = st.sampled_from(flag.choices) if flag.choices else NUMBERS.get(flag.type, TEXT)
    values = values.filter(lambda value: flag.min is None or value >= flag.min)
    if flag.nargs:
        values = st.lists(values.filter(lambda word: not str(word).startswith("-")), min_size=1, max_size=3)
    return st.lists(values, min_size=1, max_size=3) if flag.repeat else values


@st.composite
def arguments(draw: st.DrawFn, name: str) -> dict[str, object]:
    """A set of flags that the tool takes: its required ones, some more, none that a rule excludes."""
    tool = tools()[name]
    first_of_groups = {group[0] for group in tool.one_of}
    flag_names = draw(st.sets(st.sampled_from(sorted(tool.flags)), max_size=6)) | first_of_groups
    flag_names |= {flag_name for flag_name, flag in tool.flags.items() if flag.required}
    args = {flag_name: draw(value_of(tool.flags[flag_name])) for flag_name in sorted(flag_names)}
    for rule in tool.rules:
        if rule.problems(args):
            args.pop(draw(st.sampled_from(sorted(set(rule.when) - first_of_groups))), None)
    return args


PLAIN = [name for name in tools() if not name.startswith("bench")]


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=40, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_line_reads_back_the_same(name: str, data: st.DataObject) -> None:
    args = data.draw(arguments(name))
    line = command(name, args, model="m" if name == "serve" else None)
    assert parse(str(line)) == line == parse(line.argv)
    words = shlex.split(str(line).replace("\\\n", " "))[len(tools()[name].program) :]
    parsed_args, positionals = split(name, words)
    assert check(name, parsed_args) == args
    assert positionals == (["m"] if name == "serve" else [])


@pytest.mark.parametrize("mode", ["throughput", "latency"])
@settings(max_examples=40, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_bench_line_reads_back_the_same(mode: str, data: st.DataObject) -> None:
    group_flags = data.draw(arguments("bench"))
    args = data.draw(arguments(f"bench {mode}"))
    line = command(f"bench {mode}", args, group_flags=group_flags)
    assert parse(str(line)) == line
    parsed_flags, _ = split("bench", list(line.argv[1 : line.argv.index(mode, 3)]))
    assert check("bench", parsed_flags) == group_flags


def test_the_shell_sees_the_same_words() -> None:
    line = trtllm.run(engine_dir="-e", tokenizer_dir="a\nb", max_output_len=8, input_text=["p", *HARD[:8]])
    assert "\\\n" in str(line)
    script = f"printf '%s\\0' {line}"
    output = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    assert tuple(output.split("\0")[:-1]) == line.argv


@pytest.mark.parametrize("hard", HARD)
def test_hard_words_survive(hard: str) -> None:
    for line in (trtllm.build(checkpoint_dir=hard), trtllm.bench("throughput", hard, dataset=hard)):
        assert parse(str(line)) == line


def test_python_keywords_are_flags() -> None:
    line = trtllm.build(
        checkpoint_dir=Path("c"), gemm_plugin=True, use_fused_mlp=False, strip_plan=True, workers=None
    )
    assert " ".join(line.argv[1:]) == (
        "--checkpoint_dir c --gemm_plugin auto --use_fused_mlp disable --strip_plan"
    )
    assert trtllm.launch(log_file="x", no_mpi=True).argv[2:] == ("--log-file", "x", "--no-mpi")
    assert trtllm.run(max_output_len=1, kv_cache_enable_block_reuse=False).argv[-1] == (
        "--no-kv_cache_enable_block_reuse"
    )


def test_a_command_knows_its_executable_and_launcher() -> None:
    line = trtllm.run(ranks=2, max_output_len=8)
    assert line.argv[:2] == ("mpirun", "-n")
    assert line.argv[len(line.launcher)] == "python3"
    assert line.executable.endswith("examples/run.py")
    assert trtllm.convert("qwen", model_dir="m").executable.endswith("qwen/convert_checkpoint.py")
    assert trtllm.bench("latency", "m", model_path="p", dataset="d").argv[1:6] == (
        "--model", "m", "--model_path", "p", "latency")  # fmt: skip


def test_a_container_runs_the_same_command(tmp_path: Path) -> None:
    inner = trtllm.serve("e", backend="tensorrt", host="0.0.0.0")
    line = trtllm.container(inner, tmp_path, ports=[8000])
    assert line.argv[-len(inner.argv) :] == inner.argv
    assert f"{tmp_path}:/work" in line.argv
    assert parse(str(line)) == line
    with pytest.raises(FlagError, match=r"--host 0\.0\.0\.0"):
        trtllm.container(trtllm.serve("e"), tmp_path, ports=[8000])


@pytest.mark.parametrize("call", [lambda: trtllm.convert("gpt"), lambda: trtllm.bench("build", "m")])
def test_other_families_and_modes_are_refused(call: Callable[[], trtllm.Command]) -> None:
    with pytest.raises(ValueError, match="known here are"):
        call()


def test_a_command_says_that_its_tool_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    line = trtllm.build(checkpoint_dir="c")
    assert not line.available()
    assert "never run by us. The tool is not on this machine" in line._repr_markdown_()
    assert str(line) in line._repr_markdown_()
