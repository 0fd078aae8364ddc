"""Each gate over cells rejects the code, the prose or the output that it is meant to reject, and nothing else."""

from __future__ import annotations

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from tests.tools.author.lesson_case import LessonCase, html, picture, printed

CODE = {
    "shell": ["!false", "out = !ls", "%%bash\nfalse", "get_ipython().system('false')"],
    "magic": ["%run other.py", "%sx false", "%autoreload 2"],
    "process": [
        "import os\nos.system('vllm serve')",
        "import subprocess\nsubprocess.Popen(['vllm'])",
        "import subprocess\nsubprocess.run(['false'])",
        "import subprocess\nsubprocess.run(['false'], check=False)",
    ],
    "skip": ["# NBVAL_SKIP\nx = 1", "# NBVAL_RAISES_EXCEPTION\nx = 1"],
    "fallback-text": [
        "server = MockServer  # a mock",
        "print('vLLM not available, using numbers from before')",
        "print('server not found, showing a recording')",
        "x = 'simulated'",
        "# fall back to the canned answer\nx = 1",
        "x = stub",
    ],
    "swallowed-error": [
        "try:\n    x = 1\nexcept Exception:\n    pass",
        "try:\n    x = 1\nexcept Exception as error:\n    print('no server', error)",
        "for x in [1]:\n    try:\n        x\n    except ValueError:\n        continue",
        "import contextlib\nwith contextlib.suppress(Exception):\n    x = 1",
    ],
    "long-cell": ["\n".join(f"x{i} = {i}" for i in range(26))],
    "compiles": ["x = = 1"],
}
BAD_CODE = [(rule, source) for rule, sources in CODE.items() for source in sources]


@pytest.mark.parametrize(("rule", "source"), BAD_CODE)
def test_bad_code(rule: str, source: str, case: LessonCase) -> None:
    case.add_code(source)
    assert {violation.rule for violation in case.violations()} == {rule}


@pytest.mark.parametrize(("rule", "source"), BAD_CODE)
def test_bad_code_in_the_learner_file(rule: str, source: str, case: LessonCase) -> None:
    case.learner.cells.append(new_code_cell(source))
    assert {violation.rule for violation in case.violations()} == {rule}


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess\nsubprocess.run(['true'], check=True)",
        "%time x = 1",
        "# NBVAL_SKIP\n# reason: needs two GPUs\nx = 1",
        "# allow swallowed-error: the refusal is what we read\ntry:\n    x = 1\nexcept ValueError:\n    pass",
        "stubborn = 'the server of today is not available on Mondays'",
        "await_it = 1\nawait something()",
        "try:\n    x = 1\nexcept ValueError:\n    x = 2",
    ],
)
def test_good_code(source: str, case: LessonCase) -> None:
    case.add_code(source)
    assert case.violations() == []


def test_an_opt_out_needs_a_reason_and_only_some_rules_have_one(case: LessonCase) -> None:
    case.add_code("# allow fallback-text:\nx = 'dummy'")
    case.add_code("# allow shell: it is short\nget_ipython().system('true')")
    assert [violation.rule for violation in case.violations()] == ["shell", "fallback-text"]


TEXT = {
    "typed-number": [
        "It takes 12 ms.",
        "We saw 1,234 tok/s here.",
        "It is 3\N{MULTIPLICATION SIGN} faster.",
        "That is **3.5x** more.",
        "| a | b |\n|---|---|\n| vLLM | 40 % |",
        "- 4.8 TB/s of bandwidth",
        "It waits 2.5 seconds.",
        "It is 10 s. <!-- fact: -->",
        "The fact stands elsewhere. <!-- fact: a source -->\n\nIt is 10 s.",
    ],
    "headings": ["# Another title", "## Part\n\n#### Too deep"],
    "alt-text": ["![](../docs/queue.png)", '<img src="../docs/queue.png">', '<img alt="" src="x.png">'],
    "link": [
        "[gone](../docs/gone.md)",
        "[root](/etc/passwd)",
        "[nowhere](#there)",
        "[not shown](../pytest.ini)",
        "![x](../docs/gone.png)",
    ],
    "long-cell": ["\n".join("a line" for _ in range(26))],
}


@pytest.mark.parametrize(("rule", "source"), [(rule, text) for rule, texts in TEXT.items() for text in texts])
def test_bad_prose(rule: str, source: str, case: LessonCase) -> None:
    case.add_text(source)
    assert {violation.rule for violation in case.violations()} == {rule}


@pytest.mark.parametrize(
    "source",
    [
        "2 \N{MULTIPLICATION SIGN} 4 = 8.",
        "Lesson 03, TP=2, 8 GPUs, port 8000, 141 GB, p99, version 1.2.1, 90 minutes, $5.",
        "`12 ms` and $12 ms$ and\n\n```\n12 ms\n```",
        "See <https://example.org/12%20ms> and [this](https://example.org/9ms).",
    ],
)
def test_good_prose(source: str, case: LessonCase) -> None:
    case.add_text(source)
    assert case.violations() == []


OUTPUTS: dict[str, list[tuple[str, NotebookNode]]] = {
    "fallback-text": [("x", printed("no GPU: skipping\n")), ("x", html("<p>simulated</p>"))],
    "error": [("x", new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"]))],
    "alt-text": [("x", picture()), ("x", picture(alt=" ")), ("x", html('<img src="data:,">'))],
    "stderr": [("x", new_output("stream", name="stderr", text="a warning\n"))],
    "machine-path": [("x", printed("log: /tmp/x/server.log")), ("x", printed("/home/ann/models"))],
    "comparable": [
        ("# NBVAL_CHECK_OUTPUT\nx", picture(alt="a line")),
        ("# NBVAL_CHECK_OUTPUT\nx", printed(" ")),
    ],
}


@pytest.mark.parametrize(
    ("rule", "source", "output"), [(rule, *pair) for rule, pairs in OUTPUTS.items() for pair in pairs]
)
def test_bad_output(rule: str, source: str, output: NotebookNode, case: LessonCase) -> None:
    case.add_code(source, output)
    assert {violation.rule for violation in case.violations()} == {rule}


@pytest.mark.parametrize(
    "output",
    [
        picture(alt="tokens over time"),
        picture(**{"image/png": {"alt": "tokens over time"}}),
        html('<img alt="tokens over time" src="data:,">'),
        printed("see https://example.org/tmp/x and ./models/course"),
    ],
)
def test_good_output(output: NotebookNode, case: LessonCase) -> None:
    case.add_code("x", output)
    assert case.violations() == []
