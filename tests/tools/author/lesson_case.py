"""A clean lesson with both notebooks, for tests that break it and expect a gate to notice."""

from __future__ import annotations

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from tools.author.gates import NotebookFile, Violation, all_rules
from tools.author.source import LessonSource, read

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
# ## The cost
# Time.
# ## On an H100
# The same.
# ## An open challenge
# Do it better.

# %%
### BEGIN SOLUTION
flags = {"max_num_seqs": 16}
### STARTER
# flags = {}
### END SOLUTION
await challenge.judge(flags)

# %% [markdown]
# ## Recap
# Done.
"""


class LessonCase:
    """A clean lesson with both notebooks; a test breaks it."""

    def __init__(self, root: Path) -> None:
        for folder in ("docs", "solutions", "notebooks"):
            (root / folder).mkdir()
        for name in ("docs/glossary.md", "docs/queue.png", "pytest.ini"):
            (root / name).touch()
        self.path = root / "solutions" / "07_lesson.py"
        self.root = root
        self.exercise_ids = {"07.rate"}
        self.write_source(LESSON)

    def write_source(self, text: str) -> None:
        """Write the source and build both notebooks; the solution is executed as the gates expect it."""
        self.path.write_text(text, encoding="utf-8")
        self.lesson: LessonSource = read(self.path)
        self.learner = self.lesson.learner()
        self.solution = self.lesson.solution()
        for count, cell in enumerate(self.code_cells, 1):
            cell.execution_count = count
            cell.outputs = [printed(_output_of(cell.source))]

    @property
    def code_cells(self) -> list[NotebookNode]:
        return [cell for cell in self.solution.cells if cell.cell_type == "code"]

    def add_code(self, source: str, *outputs: NotebookNode) -> None:
        count = len(self.code_cells) + 1
        self.solution.cells.append(new_code_cell(source, execution_count=count, outputs=list(outputs)))

    def add_text(self, source: str) -> None:
        self.solution.cells.append(new_markdown_cell(source))

    def violations(self) -> list[Violation]:
        learner = NotebookFile("notebooks/07_lesson.ipynb", self.learner, self.root)
        solution = NotebookFile("solutions/07_lesson.ipynb", self.solution, self.root)
        return all_rules(learner, solution, self.lesson, self.exercise_ids)


def _output_of(source: str) -> str:
    if "judge(" in source:
        return "BAR REACHED 07.challenge — 16 tokens/s\n"
    return "PASSED 07.rate — A rate\n" if "check(" in source else "refused: division by zero\n"


def printed(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def picture(**metadata: object) -> NotebookNode:
    return new_output("display_data", data={"image/png": "iVBORw0KGgo=\n"}, metadata=metadata)


def html(text: str) -> NotebookNode:
    return new_output("display_data", data={"text/html": text, "text/plain": "a figure"})
