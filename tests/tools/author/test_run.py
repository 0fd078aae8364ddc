"""Running lessons: the report says what ran, what failed and what was never reached."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engineroom.kit.machine import machine
from tools.author.report import RunReport
from tools.author.run import parse_parameters, run

GOOD = """\
# %% [markdown]
# # A good lesson

# %% tags=["parameters"]
model = "models/course"

# %%
print("model is", model)

# %%
print("PASSED 00.try — A try")
"""
RAISES = """\
# %% [markdown]
# # It <raises>

# %%
x = 1

# %%
assert x == 2, "<b>x is not two</b>"

# %%
print("never reached")
"""
HANGS = """\
# %%
x = 1

# %%
while True:
    pass

# %%
print("never reached")
"""
DIES = """\
# %%
import os

# %%
os._exit(3)
"""


def lessons(folder: Path, *sources: str) -> Path:
    (folder / "solutions").mkdir()
    for number, source in enumerate(sources):
        (folder / "solutions" / f"{number:02d}_lesson.py").write_text(source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunReport, Path]:
    root = lessons(tmp_path_factory.mktemp("run"), GOOD, RAISES, HANGS, DIES)
    report = run(parameters={"model": "models/draft"}, out=root / "out", timeout=10, root=root)
    return report, root / "out"


def test_each_cell_gets_its_result(finished: tuple[RunReport, Path]) -> None:
    passes, raises, hangs, dies = finished[0].lessons
    results = [[cell.result for cell in lesson.cells] for lesson in finished[0].lessons]
    # the first has a cell more: the parameters that papermill put in
    failed = ["ok", "failed", "not run"]
    assert results == [["ok"] * 4, failed, failed, ["ok", "failed"]]
    assert (passes.ok, raises.ok, hangs.ok, dies.ok) == (True, False, False, False)
    assert "x is not two" in str(raises.cells[1].error)
    assert "CellTimeoutError: A cell timed out" in str(hangs.error)
    assert "DeadKernelError" in str(dies.error)
    assert all(cell.seconds is not None and cell.seconds >= 0 for cell in passes.cells)
    assert not finished[0].ok


def test_counts_checks_and_parameters(finished: tuple[RunReport, Path]) -> None:
    report, out = finished
    counts = {"lessons ok": 1, "cells ok": 7, "cells failed": 3, "cells not run": 2, "checks passed": 1}
    assert report.counts == counts
    assert "model is models/draft" in (out / "run" / "00_lesson.ipynb").read_text()


def test_both_reports_are_written_and_say_the_same(finished: tuple[RunReport, Path]) -> None:
    report, out = finished
    stored = json.loads((out / "report.json").read_text())
    assert stored["counts"] == report.counts and stored["ok"] is False
    assert stored["machine"]["python"]
    page = (out / "report.html").read_text()
    assert "something failed" in page and "00.try" in page
    assert "It &lt;raises&gt;" in page and "<b>x is not two</b>" not in page
    assert "http://" not in page and "src=" not in page


def test_a_run_of_good_lessons_is_ok(tmp_path: Path) -> None:
    root = lessons(tmp_path, GOOD)
    report = run(out=root / "out", root=root)
    assert report.ok and "everything ran" in (root / "out" / "report.html").read_text()


ONCE = """\
# %% tags=["parameters"]
model = "models/course"

# %%
count = 0

# %%
print("model is", model)
"""
SECOND_RUN_FAILS = (
    ONCE
    + """
# %%
assert count == 0
count += 1
"""
)
ALL_AGAIN_FAILS = (
    ONCE
    + """
# %%
import shelve
with shelve.open("results") as results:
    results[str(len(results))] = True
    assert len(results) < 3
"""
)


def test_a_repeated_run_finds_cells_that_cannot_be_run_again(tmp_path: Path) -> None:
    root = lessons(tmp_path, ONCE, SECOND_RUN_FAILS, ALL_AGAIN_FAILS)
    assert run(out=root / "out", root=root).ok
    report = run(out=root / "out", root=root, repeat=True, parameters={"model": "models/draft"})
    passes, second, again = report.lessons
    assert passes.ok and [cell.title.partition(")")[0] for cell in passes.cells].count("(all again") == 2
    assert (root / "out" / "run" / "00_lesson.ipynb").read_text().count("model is models/draft") == 3
    failed = [next(cell for cell in lesson.cells if cell.result == "failed") for lesson in (second, again)]
    assert [cell.title for cell in failed] == ["(second run) assert count == 0", "(all again) import shelve"]


def test_a_lesson_without_code_is_a_failure(tmp_path: Path) -> None:
    root = lessons(tmp_path, "# %% [markdown]\n# # Only words\n")
    assert not run(out=root / "out", root=root).ok


def test_nothing_to_run_is_an_error_and_an_empty_report_is_not_ok(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no lesson"):
        run(root=tmp_path, out=tmp_path / "out")
    empty = RunReport(started="2026-01-01T00:00:00+00:00", machine=machine(), parameters={})
    assert not empty.ok and "nothing ran" in str(empty) and "nothing ran" in empty.html()


def test_a_parameter_that_no_lesson_has_is_refused(tmp_path: Path) -> None:
    root = lessons(tmp_path, GOOD)
    with pytest.raises(ValueError, match="no lesson has a parameter modle; there are: model"):
        run(parameters={"modle": "x"}, out=root / "out", root=root)


def test_parameters_are_json_where_they_can_be() -> None:
    pairs = ["budget=10", "model=models/course", 'engines=["vllm"]', "note=a=b"]
    parsed = {"budget": 10, "model": "models/course", "engines": ["vllm"], "note": "a=b"}
    assert parse_parameters(pairs) == parsed
    with pytest.raises(ValueError, match="write name=value"):
        parse_parameters(["budget"])
