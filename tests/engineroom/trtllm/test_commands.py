"""A command holds what was asked for, for a shell and for subprocess, and reads back the same."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineroom import trtllm
from engineroom.trtllm.commands import command
from engineroom.trtllm.flags import FlagError, check, tools
from engineroom.trtllm.pasted import parse, split
from engineroom.trtllm.values import Flag

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NUMBERS = {"int": st.integers(-1, 10**6), "float": st.floats(0, 10, allow_nan=False)}
HARD = ["throughput", "a b", "it's", '"q"', "$HOME", "`x`", "\\", "", "a\nb", "-x", "*", "é", "a=b"]


def value_of(flag: Flag) -> st.SearchStrategy:
    """Any value that the flag takes."""
    if flag.type == "switch":
        return st.booleans() if flag.off else st.just(True)
    one = st.sampled_from(flag.choices) if flag.choices else NUMBERS.get(flag.type, TEXT)
    one = one.filter(lambda value: flag.min is None or value >= flag.min)
    if flag.many:
        one = st.lists(one.filter(lambda word: not str(word).startswith("-")), min_size=1, max_size=3)
    return st.lists(one, min_size=1, max_size=3) if flag.repeat else one


@st.composite
def arguments(draw: st.DrawFn, name: str) -> dict[str, object]:
    """A set of flags that the tool takes: its required ones, some others, none that a rule excludes."""
    tool = tools()[name]
    names = draw(st.sets(st.sampled_from(sorted(tool.flags)), max_size=6))
    names |= {one for one, flag in tool.flags.items() if flag.required} | {one[0] for one in tool.one_of}
    args = {one: draw(value_of(tool.flags[one])) for one in sorted(names)}
    for rule in tool.rules:
        if rule.problems(args):
            args.pop(draw(st.sampled_from(sorted(set(rule.given) - {one[0] for one in tool.one_of}))), None)
    return args


PLAIN = [name for name in tools() if not name.startswith("bench")]


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=40, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_line_reads_back_the_same(name: str, data: st.DataObject) -> None:
    args = data.draw(arguments(name))
    made = command(name, args, model="m" if name == "serve" else None)
    assert parse(str(made)) == made == parse(made.argv)
    found, loose = split(name, shlex.split(str(made).replace("\\\n", " "))[len(tools()[name].program) :])
    assert check(name, found) == args
    assert loose == (["m"] if name == "serve" else [])


@pytest.mark.parametrize("mode", ["throughput", "latency"])
@settings(max_examples=40, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_bench_line_reads_back_the_same(mode: str, data: st.DataObject) -> None:
    group, args = data.draw(arguments("bench")), data.draw(arguments(f"bench {mode}"))
    made = command(f"bench {mode}", args, group=group)
    assert parse(str(made)) == made
    assert check("bench", split("bench", list(made.argv[1 : made.argv.index(mode, 3)]))[0]) == group


def test_the_shell_sees_the_same_words() -> None:
    made = trtllm.run(engine_dir="-e", tokenizer_dir="a\nb", max_output_len=8, input_text=["p", *HARD[:8]])
    assert "\\\n" in str(made)
    line = f"printf '%s\\0' {made}"
    seen = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
    assert tuple(seen.split("\0")[:-1]) == made.argv


@pytest.mark.parametrize("hard", HARD)
def test_hard_words_survive(hard: str) -> None:
    for made in (trtllm.build(checkpoint_dir=hard), trtllm.bench("throughput", hard, dataset=hard)):
        assert parse(str(made)) == made


def test_python_keywords_are_flags() -> None:
    made = trtllm.build(
        checkpoint_dir=Path("c"), gemm_plugin=True, use_fused_mlp=False, strip_plan=True, workers=None
    )
    assert (
        " ".join(made.argv[1:])
        == "--checkpoint_dir c --gemm_plugin auto --use_fused_mlp disable --strip_plan"
    )
    assert trtllm.launch(log_file="x", no_mpi=True).argv[2:] == ("--log-file", "x", "--no-mpi")
    assert trtllm.run(max_output_len=1, kv_cache_enable_block_reuse=False).argv[-1] == (
        "--no-kv_cache_enable_block_reuse"
    )


def test_where_and_launcher() -> None:
    made = trtllm.run(ranks=2, max_output_len=8)
    assert made.argv[:2] == ("mpirun", "-n")
    assert made.argv[len(made.launcher)] == "python3"
    assert made.where.endswith("examples/run.py")
    assert trtllm.convert("qwen", model_dir="m").where.endswith("qwen/convert_checkpoint.py")
    assert trtllm.bench("latency", "m", model_path="p", dataset="d").argv[1:6] == (
        "--model", "m", "--model_path", "p", "latency")  # fmt: skip


def test_container(tmp_path: Path) -> None:
    inner = trtllm.serve("e", backend="tensorrt", host="0.0.0.0")
    made = trtllm.container(inner, tmp_path, ports=[8000])
    assert made.argv[-len(inner.argv) :] == inner.argv
    assert f"{tmp_path}:/work" in made.argv
    assert parse(str(made)) == made
    with pytest.raises(FlagError, match=r"--host 0\.0\.0\.0"):
        trtllm.container(trtllm.serve("e"), tmp_path, ports=[8000])


@pytest.mark.parametrize("call", [lambda: trtllm.convert("gpt"), lambda: trtllm.bench("build", "m")])
def test_other_families_and_modes_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="known here are"):
        call()


def test_a_tool_that_is_not_here_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    made = trtllm.build(checkpoint_dir="c")
    assert not made.available()
    assert "never run by us. The tool is not on this machine" in made._repr_markdown_()
    assert str(made) in made._repr_markdown_()
