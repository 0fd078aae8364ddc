"""Each gate rejects the notebook that it is there for, and a clean one passes them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from labs.author.gates import Book, Problem, all_rules, problems
from labs.author.source import Lesson, read

LESSON = """\
# %% [markdown]
# # A lesson
# ## What you will be able to do
# Read [the glossary](../docs/glossary.md), see [below](#recap), in `5 ms` or $t = 5 s$.

# %% [markdown]
# ## Time and money
# A deadline of 30 s is the default. <!-- fact: https://docs.vllm.ai/ -->
# ### A picture
# ![a queue of three requests](../docs/queue.png)

# %%
### BEGIN SOLUTION
rate = 6 / 2
### STARTER
# rate = ...  # requests per second
### END SOLUTION
check("07.rate", rate)

# %% tags=["nbval-check-output"]
try:
    rate / 0
except ZeroDivisionError as error:
    print("refused:", error)
else:
    raise AssertionError("it should have been refused")

# %% [markdown]
# ## On an H100
# The same.
# ## Recap
# Done.
"""


class Case:
    """A clean lesson with both notebooks, to be broken."""

    def __init__(self, root: Path) -> None:
        for folder in ("docs", "solutions", "notebooks"):
            (root / folder).mkdir()
        for name in ("docs/glossary.md", "docs/queue.png", "pytest.ini"):
            (root / name).touch()
        self.path = root / "solutions" / "07_lesson.py"
        self.root = root
        self.known = {"07.rate"}
        self.source(LESSON)

    def source(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")
        self.lesson: Lesson = read(self.path)
        self.learner = self.lesson.learner()
        self.solution = self.lesson.solution()
        for count, cell in enumerate((c for c in self.solution.cells if c.cell_type == "code"), 1):
            cell.execution_count = count
            text = "PASSED 07.rate — A rate\n" if "check(" in cell.source else "refused: division by zero\n"
            cell.outputs = [new_output("stream", name="stdout", text=text)]

    @property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.solution.cells if cell.cell_type == "code"]

    def add_code(self, source: str, *outputs: NotebookNode) -> None:
        count = len(self.code) + 1
        self.solution.cells.append(new_code_cell(source, execution_count=count, outputs=list(outputs)))

    def add_text(self, source: str) -> None:
        self.solution.cells.append(new_markdown_cell(source))

    def problems(self) -> list[Problem]:
        learner = Book("notebooks/07_lesson.ipynb", self.learner, self.root)
        solution = Book("solutions/07_lesson.ipynb", self.solution, self.root)
        return all_rules(learner, solution, self.lesson, self.known)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_clean_lesson_passes(case: Case) -> None:
    assert case.problems() == []


def printed(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def picture(**metadata: object) -> NotebookNode:
    return new_output("display_data", data={"image/png": "iVBORw0KGgo=\n"}, metadata=metadata)


def html(text: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": text, "text/plain": "a figure"})


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
def test_bad_code(rule: str, source: str, case: Case) -> None:
    case.add_code(source)
    assert {problem.rule for problem in case.problems()} == {rule}


@pytest.mark.parametrize(("rule", "source"), BAD_CODE)
def test_bad_code_in_the_learner_file(rule: str, source: str, case: Case) -> None:
    case.learner.cells.append(new_code_cell(source))
    assert {problem.rule for problem in case.problems()} == {rule}


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
def test_good_code(source: str, case: Case) -> None:
    case.add_code(source)
    assert case.problems() == []


def test_an_opt_out_needs_a_reason_and_only_some_rules_have_one(case: Case) -> None:
    case.add_code("# allow fallback-text:\nx = 'dummy'")
    case.add_code("# allow shell: it is short\nget_ipython().system('true')")
    assert [problem.rule for problem in case.problems()] == ["shell", "fallback-text"]


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
def test_bad_prose(rule: str, source: str, case: Case) -> None:
    case.add_text(source)
    assert {problem.rule for problem in case.problems()} == {rule}


@pytest.mark.parametrize(
    "source",
    [
        "2 \N{MULTIPLICATION SIGN} 4 = 8.",
        "Lesson 03, TP=2, 8 GPUs, port 8000, 141 GB, p99, version 1.2.1, 90 minutes, $5.",
        "`12 ms` and $12 ms$ and\n\n```\n12 ms\n```",
        "See <https://example.org/12%20ms> and [this](https://example.org/9ms).",
    ],
)
def test_good_prose(source: str, case: Case) -> None:
    case.add_text(source)
    assert case.problems() == []


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
def test_bad_output(rule: str, source: str, output: NotebookNode, case: Case) -> None:
    case.add_code(source, output)
    assert {problem.rule for problem in case.problems()} == {rule}


@pytest.mark.parametrize(
    "output",
    [
        picture(alt="tokens over time"),
        picture(**{"image/png": {"alt": "tokens over time"}}),
        html('<img alt="tokens over time" src="data:,">'),
        printed("see https://example.org/tmp/x and ./models/course"),
    ],
)
def test_good_output(output: NotebookNode, case: Case) -> None:
    case.add_code("x", output)
    assert case.problems() == []


def no_counts(case: Case) -> None:
    for cell in case.code:
        cell.execution_count = None


def ran_twice(case: Case) -> None:
    case.code[1].execution_count = 5


def nothing_ran(case: Case) -> None:
    case.solution.cells = [cell for cell in case.solution.cells if cell.cell_type == "markdown"]


def output_lost(case: Case) -> None:
    case.code[1].outputs = []


def check_failed(case: Case) -> None:
    case.code[0].outputs = [printed("NOT YET 07.rate: divide by the time\n")]


def other_check_passed(case: Case) -> None:
    case.code[0].outputs = [printed("PASSED 07.rates — Another\n")]


def not_registered(case: Case) -> None:
    case.add_code('check("07.other", 1)', printed("PASSED 07.other — x\n"))


def id_is_computed(case: Case) -> None:
    case.add_code('check("07." + "rate", 1)', printed("PASSED 07.rate — x\n"))


def checked_twice(case: Case) -> None:
    case.add_code('check("07.rate", 1)', printed("PASSED 07.rate — x\n"))


def never_checked(case: Case) -> None:
    case.known.add("07.forgotten")


def check_inside_the_region(case: Case) -> None:
    marker = "### STARTER"
    text = LESSON.replace('\ncheck("07.rate", rate)', "").replace(marker, f'check("07.rate", rate)\n{marker}')
    case.source(text)


def region_without_check(case: Case) -> None:
    case.source(
        LESSON.replace("# ## Recap", "# ## Recap\n\n# %%\n### BEGIN SOLUTION\ny = 1\n### END SOLUTION")
    )


def no_recap(case: Case) -> None:
    case.source(LESSON.replace("## Recap", "## End").replace("#recap", "#end"))


def sections_swapped(case: Case) -> None:
    text = (
        LESSON.replace("## Recap", "## X")
        .replace("## On an H100", "## Recap")
        .replace("## X", "## On an H100")
    )
    case.source(text)


def no_title(case: Case) -> None:
    for cell in case.solution.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("#", "").replace("(recap)", "")


def learner_has_output(case: Case) -> None:
    case.learner.cells[2].outputs = [printed("3\n")]


def learner_has_count(case: Case) -> None:
    case.learner.cells[2].execution_count = 1


def learner_has_answer(case: Case) -> None:
    case.learner.cells[3].source += "\n    rate = 6 / 2"


def learner_has_marker(case: Case) -> None:
    case.learner.cells[2].source += "\n# solution"


def learner_lost_a_check(case: Case) -> None:
    case.learner.cells[2].source = "rate = ..."


BREAKS: list[tuple[str, Callable[[Case], None]]] = [
    ("ran", no_counts),
    ("ran", ran_twice),
    ("ran", nothing_ran),
    ("comparable", output_lost),
    ("comparable", no_counts),
    ("exercise", check_failed),
    ("exercise", other_check_passed),
    ("exercise", not_registered),
    ("exercise", id_is_computed),
    ("exercise", checked_twice),
    ("exercise", never_checked),
    ("exercise", nothing_ran),
    ("learner", check_inside_the_region),
    ("exercise", region_without_check),
    ("sections", no_recap),
    ("sections", sections_swapped),
    ("headings", no_title),
    ("learner", learner_has_output),
    ("learner", learner_has_count),
    ("learner", learner_has_answer),
    ("learner", learner_has_marker),
    ("learner", learner_lost_a_check),
]


@pytest.mark.parametrize(("rule", "sabotage"), BREAKS, ids=lambda value: getattr(value, "__name__", value))
def test_sabotage(rule: str, sabotage: Callable[[Case], None], case: Case) -> None:
    sabotage(case)
    found = case.problems()
    assert rule in {problem.rule for problem in found}
    assert all(str(problem).startswith(("notebooks/07", "solutions/07")) for problem in found)


def test_a_notebook_that_was_never_built_is_a_problem(case: Case) -> None:
    assert [problem.rule for problem in problems(root=case.root)] == ["missing", "missing"]


def test_no_lesson_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no lesson"):
        problems(root=tmp_path)


def test_the_clean_notebooks_are_valid(case: Case) -> None:
    nbformat.validate(case.solution)
    nbformat.validate(case.learner)
