"""What people paste: shell plumbing around a command changes nothing, and no text ends in a traceback."""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engineroom.trtllm.__main__ import main
from engineroom.trtllm.flags import FlagError
from engineroom.trtllm.parser import parse, parse_script

RIGHT = [
    "trtllm-build --checkpoint_dir c --output_dir e --gemm_plugin auto",
    "trtllm-serve some/model --host 0.0.0.0 --port 8000",
    "trtllm-bench --model m throughput --dataset 'a file.txt'",
    "python3 examples/models/core/qwen/convert_checkpoint.py --model_dir 'it is' --output_dir c",
    'python -m tensorrt_llm.commands.build --checkpoint_dir "c" --max_batch_size=8',
    "trtllm-build --checkpoint_dir c --max_batch_size $BATCH --workers=${N:-2}",
]
WRONG = [
    "trtllm-build --checkpoint_dir c --max_output_len 64",
    "trtllm-serve e --backend trt --tp 8 --bogus",
    "trtllm-bench --model m build --dataset d.txt",
    "trtllm-build –checkpoint_dir c",
    "trtllm-serve “/models/engine” --backend tensorrt",
    "python examples/llama/build.py --model_dir m",
    "python -m tensorrt_llm.commands.build --workers two",
]
LAUNCHED: list[Callable[[str], str]] = [
    lambda line: f"nohup {line}",
    lambda line: f"CUDA_VISIBLE_DEVICES=0,1 NAME='a b' {line}",
    lambda line: f"env A=1 {line}",
    lambda line: f"sudo -u root timeout -s KILL 5m nice -n 5 {line}",
    lambda line: f"mpirun -n 2 --allow-run-as-root {line}",
    lambda line: f"mpirun -n 2 trtllm-llmapi-launch {line}",
    lambda line: f"docker run --rm -it -p8000:8000 --gpus all -v /a:/b --name trtllm-serve IMAGE {line}",
    lambda line: f"docker exec -it name {line}",
    lambda line: f"time {line}",
    lambda line: f"srun -J trtllm-serve -n 2 {line}",
]
REDIRECTED: list[Callable[[str], str]] = [
    lambda line: f"{line} > log.txt 2>&1",
    lambda line: f"{line} 2>/dev/null < /dev/null",
    lambda line: f"{line} &> 'a log'",
    lambda line: " > log --".join(line.split(" --", 1)),
    lambda line: line.replace(" --", " \\\n    --"),
    lambda line: line.replace(" --", " \\\r\n    --"),
]
PLUMBING: list[Callable[[str], str]] = [
    lambda text: f"cd 'a b' && ( {text}\n) 2>&1 | tee build.log",
    lambda text: f'set -euo pipefail\nexport A=1; echo "it\'s trtllm-build"\n{text}\necho done',
    lambda text: f"# it's a comment: trtllm-build --bogus\n\n{text}\n# don't forget",
    lambda text: f"if [ -d e ]; then\n{text}\nfi",
    lambda text: f"for size in 1 2 4; do\n{text}\ndone",
    lambda text: f"( {text}\n) &\nsleep 5; kill $!",
    lambda text: f"bash -c {shlex.quote(text)}",
    lambda text: f"docker run --rm --gpus all IMAGE sh -ec {shlex.quote(text)} | cat",
    lambda text: f"docker run --entrypoint bash IMAGE -c {shlex.quote(text)}",
    lambda text: f"ssh -p 22 host {shlex.quote('cd x && ' + text)}",
    lambda text: f"tmux new-session -d -s serve {shlex.quote(text)}",
    lambda text: f"bash <<'END{len(text)}'\n{text}\nEND{len(text)}",
    lambda text: f"cat <<'END{len(text)}' > notes.txt\nit's trtllm-build --bogus\nEND{len(text)}\n{text}",
    lambda text: f"which trtllm-build && {{ {text}\n}} || exit 1",
    lambda text: f"{text}\n",
]


def verdict(text: str) -> list[tuple[str, ...]] | list[str]:
    """The words of each right command without its launcher, or the problems."""
    try:
        return [command.argv[len(command.launcher) :] for command in parse_script(text)]
    except FlagError as error:
        return error.problems


@st.composite
def pasted(draw: st.DrawFn) -> tuple[str, str]:
    """A command, and the same with plumbing around it."""
    bare = draw(st.sampled_from(RIGHT + WRONG))
    text = bare
    for wrappers, max_size in ((LAUNCHED, 2), (REDIRECTED, 1), (PLUMBING, 3)):
        for wrap in draw(st.lists(st.sampled_from(wrappers), max_size=max_size)):
            text = wrap(text)
    return bare, text


@settings(max_examples=250, derandomize=True, deadline=None)
@given(lines=pasted())
def test_plumbing_does_not_change_the_verdict(lines: tuple[str, str]) -> None:
    bare, text = lines
    assert verdict(text) == verdict(bare)


@pytest.mark.parametrize("line", RIGHT)
def test_right_lines_are_right(line: str) -> None:
    assert parse_script(line) == [parse(line)]


@settings(max_examples=120, derandomize=True, deadline=None)
@given(first=st.sampled_from(RIGHT + WRONG), second=st.sampled_from(RIGHT + WRONG), data=st.data())
def test_each_tool_of_a_line_is_judged_by_its_own_flags(first: str, second: str, data: st.DataObject) -> None:
    link = data.draw(st.sampled_from([" && ", "; ", " || ", " & ", "\n", " | "]))
    lines = (first, second)
    verdicts = [verdict(line) for line in lines]
    wrong = [
        problem for line, result in zip(lines, verdicts, strict=True) if line in WRONG for problem in result
    ]
    assert verdict(first + link + second) == (wrong or verdicts[0] + verdicts[1])


FRAGMENTS = [
    "trtllm-build", "trtllm-serve", "trtllm-bench", "python3", "run.py", "build.py", "-m", "bash", "-c", "eval",
    "docker", "run", "mpirun", "env", "timeout", "throughput", "--checkpoint_dir", "--max_batch_size=", "9" * 400,
    "-", "--", "--=", "“", "–", "\u00a0", "\\", "\\\n", "'", '"', "`", "$(", ")", "${", "}", "<<EOF", "<<<", ">", "|",
    "&", ";", "#", "(", "{", "$", "!", "if", "do", "\0", "\ud800", "é", "\r", "$'\\x'", "[[",
]  # fmt: skip


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    pieces=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=12), data=st.data()
)
def test_any_text_is_read_or_refused(pieces: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(["", " "])).join(pieces)
    for line in (text, pieces, f"trtllm-build --checkpoint_dir c {text}", f"trtllm-serve {text}"):
        try:
            assert parse_script(line)
        except FlagError as error:
            assert error.problems
            assert str(error).strip()


@pytest.mark.parametrize(
    "text", ["nohup " * 5000 + "x", "bash -c eval " * 3000, "(" * 5000, "$(" * 3000, "eval " * 5000]
)
def test_deep_texts_are_read_or_refused(text: str) -> None:
    with pytest.raises(FlagError):
        parse_script(text)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("# trtllm-build --checkpoint_dir c", "only a comment: nothing would run"),
        ("\n# a\n  # b\n", "only a comment: nothing would run"),
        ("  \n", "it is empty"),
        ('trtllm-build --checkpoint_dir "c --output_dir e', 'the quote " is opened and never closed'),
        ("trtllm-build --checkpoint_dir 'c --output_dir e", "the quote ' is opened and never closed"),
        ("trtllm-build --checkpoint_dir `c", "the quote ` is opened and never closed"),
        ("bash -c 'trtllm-build --checkpoint_dir \"c'", 'the quote " is opened and never closed'),
        ("trtllm-build --checkpoint_dir c &&", "a shell cannot read it"),
        ("trtllm-build –checkpoint_dir c", "the en dash (U+2013), which is no hyphen. Type --checkpoint_dir."),
        ("trtllm-build —checkpoint_dir c", "the em dash (U+2014), which is no hyphen. Type --checkpoint_dir."),
        ("trtllm-build -–checkpoint_dir c", "Type --checkpoint_dir."),
        ("trtllm-bench –m m throughput --dataset d", "Type -m."),
        ("trtllm‑build --checkpoint_dir c", "Type trtllm-build."),
        ("trtllm-serve ‘m’", "the left single quotation mark (U+2018)"),
        ("trtllm-serve m --tokenizer=“t”", "the left double quotation mark (U+201C)"),
        ("trtllm-build\u00a0--checkpoint_dir c", "the no-break space (U+00A0)"),
        ("trtllm-build --checkpoint_dir c \\ \n  --output_dir e", "'--output_dir' starts a command of its own"),
        ("trtllm-build --checkpoint_dir c\n  --output_dir e", "'--output_dir' starts a command of its own"),
        ("trtllm-build --checkpoint_dir c \\\n# why\n  --output_dir e", "starts a command of its own"),
        ("trtllm-bench -m m prepare-dataset token-norm-dist", "has the subcommand prepare-dataset"),
        ("python -m tensorrt_llm.commands.eval --model m", "not transcribed"),
        ("trtllm-refit --checkpoint_dir c", "not transcribed"),
        ("python3 ../llama/build.py --model_dir m --dtype float16", "2023"),
        ("python build.py --model_dir=m --use_gpt_attention_plugin float16", "2023"),
        ("python hf_llama_convert.py -i m -o c", "2023"),
        ("python3 hf_gpt_convert.py -i m -o c", "2023"),
        ("python examples/llama/quantize.py --model_dir m", "examples/quantization/quantize.py"),
        ("trtllm-build --checkpoint_dir c --use_inflight_batching", "2023"),
        ("trtllm-build --checkpoint_dir c --enable_context_fmha", "Use --context_fmha (a name of 2023"),
        ("which trtllm-serve; pkill -f trtllm-serve", "It has trtllm-serve only as an argument of another program"),
        ("python -m pip install tensorrt_llm", "none of the tools known here"),
        ("python build.py install", "none of the tools known here"),
        ("python my_script.py trtllm-build", "none of the tools known here"),
        ("trtllm-build --help", "does nothing else"),
        ("trtllm-build --workers two && trtllm-serve", "two'.\ntrtllm-build: --checkpoint_dir or --model_config"),
        ("trtllm-build --workers two && trtllm-serve", "\ntrtllm-serve: MODEL is required"),
    ],
)  # fmt: skip
def test_the_remedy_is_named(line: str, remedy: str) -> None:
    with pytest.raises(FlagError, match=re.escape(remedy)):
        parse_script(line)


@pytest.mark.parametrize("dash", "‐‑‒–—―−")
@pytest.mark.parametrize("line", RIGHT[:2])
def test_every_dash_in_place_of_hyphens_is_named(line: str, dash: str) -> None:
    with pytest.raises(FlagError, match="which is no hyphen"):
        parse_script(line.replace("--", dash))


@pytest.mark.parametrize("marks", ["“”", "‘’", "„“", "«»", "””"])
def test_every_typographic_quote_is_named_and_may_stand_in_real_quotes(marks: str) -> None:
    with pytest.raises(FlagError, match="which is no quote for a shell"):
        parse_script(f"trtllm-serve {marks[0]}m{marks[1]}")
    assert parse(f"trtllm-serve '{marks[0]}m{marks[1]}'").argv[2] == f"{marks[0]}m{marks[1]}"


def test_what_the_shell_fills_in_is_not_judged() -> None:
    assert str(parse('trtllm-serve "$MODEL" --tp_size=$(nproc) $MORE')) == (
        'trtllm-serve serve "$MODEL" --tensor_parallel_size $(nproc) $MORE'
    )
    assert parse("trtllm-build $FLAGS").argv == ("trtllm-build", "$FLAGS")
    with pytest.raises(FlagError) as caught:
        parse("trtllm-build $FLAGS --max_output_len 5 --workers '$N'")
    assert len(caught.value.problems) == 2


def test_a_number_too_large_for_a_float_is_read() -> None:
    line = f"trtllm-bench -m m throughput --dataset d --target_input_len {'9' * 400}"
    assert verdict(line) == [tuple(line.replace(" -m ", " --model ").split())]


def test_parse_takes_one_command_and_parse_script_several() -> None:
    assert len(parse_script(f"{RIGHT[0]} && {RIGHT[1]}")) == 2
    with pytest.raises(FlagError, match="it has 2 commands of TensorRT-LLM"):
        parse(f"{RIGHT[0]} && {RIGHT[1]}")


@pytest.mark.parametrize(
    ("words", "status", "printed"),
    [
        (
            ["nohup trtllm-serve m > log 2>&1 & trtllm-build --checkpoint_dir c"],
            0,
            "\ntrtllm-build --checkpoint_dir c",
        ),
        (["trtllm-build --checkpoint_dir c && trtllm-serve"], 1, "trtllm-serve: MODEL is required"),
        (["trtllm-build", "–checkpoint_dir", "c"], 1, "Type --checkpoint_dir"),
        (["trtllm-serve", "“m”"], 1, "no quote for a shell"),
        (["bash", "-c", "trtllm-serve m --bogus"], 1, "no flag --bogus"),
        (["trtllm-serve", "a b$c"], 0, "trtllm-serve serve 'a b$c'"),
        (["# trtllm-serve m"], 1, "nothing would run"),
        ([string.printable], 1, "line: "),
    ],
)
def test_the_command_reads_texts_and_words(
    capsys: pytest.CaptureFixture, words: list[str], status: int, printed: str
) -> None:
    assert main(["check", "--", *words]) == status
    output = capsys.readouterr()
    assert printed in (output.err if status else output.out)
