"""An error in a notebook's cell is one message with the learner's line; in a real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from labs.kit.cell_errors import VARIABLE
from tools.kernel import IpcKernelManager, private_runtime

ROOT = Path(__file__).parents[3]
INTERRUPT = (  # as Jupyter's stop button does, once the cell is at work: ipykernel ends when it is pressed too early
    "import signal, threading; at_work = threading.Event(); main = threading.main_thread().ident; "
    "threading.Thread(target=lambda: at_work.wait() and signal.pthread_kill(main, signal.SIGINT)).start()"
)
CELLS = {
    "start": "import labs.kit\nfrom engineroom.kit.errors import UserError\nimport asyncio, json, time",
    "function": "def reciprocal(x):\n    return 1 / x\n\n\nreciprocal(0)",
    "another cell": "reciprocal(0)",
    "whole traceback": "%tb",
    "library": "json.loads('{')",
    "user error": "raise UserError('The model is missing. Download it.')",
    "gathered": "await asyncio.gather(asyncio.to_thread(reciprocal, 0))",
    "group": "async with asyncio.TaskGroup() as group:\n    group.create_task(asyncio.to_thread(reciprocal, 0))",
    "skipped cell": "plots.sweep(points, slo, best)",
    "skipped exercise": "p99 = ...\np99([1, 2])",
    "skipped exercise in a function": (
        "def latencies(trace):\n    return {'ttft': ..., 'tpot': ...}\n\n\n"
        "def goodput(traces):\n    rows = [latencies(trace) for trace in traces]\n"
        "    return sum(row['ttft'] <= 1 for row in rows)\n\n\ngoodput([1])"
    ),
    "unknown name": "no_such_name",
    "unwritten name of no exercise": "my_own = ...\nmy_own + 1",
    "unfinished": "from labs.kit.check import needs\nneeds('05.limits', ...)",
    "interrupted": f"{INTERRUPT}\nwhile True:\n    at_work.set(); time.sleep(0.05)",
    "interrupted await": (
        f"{INTERRUPT}; asyncio.get_running_loop().call_soon(at_work.set)\nawait asyncio.sleep(600)"
    ),
    "syntax": "x = (1 +",
    "afterwards": "print('alive')",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[nbformat.NotebookNode]]]:
    """The outputs of each cell, as a learner of lesson 02 gets them."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, private_runtime() as runtime:
        for variable, value in runtime.items():
            patch.setenv(variable, value)
        patch.delenv(VARIABLE, raising=False)
        patch.setenv("ENGINEROOM_HOME", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("JPY_SESSION_NAME", str(folder / "02_measure.ipynb"))
        client = NotebookClient(
            notebook,
            timeout=120,
            startup_timeout=300,
            allow_errors=True,
            kernel_manager_class=IpcKernelManager,
            kernel_name="python3",
        )
        client.execute()
    yield {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


@pytest.mark.parametrize(
    ("cell", "name", "text"),
    [
        (
            "function",
            "ZeroDivisionError",
            "division by zero, in `reciprocal`, line 2: `return 1 / x`. (`%tb`",
        ),
        ("another cell", "ZeroDivisionError", "in `reciprocal`, line 2 of In[2]: `return 1 / x`."),
        ("library", "JSONDecodeError", "in line 1: `json.loads('{')`."),
        ("user error", "UserError", "The model is missing. Download it. This is line 1: `raise UserError("),
        ("gathered", "ZeroDivisionError", "in `reciprocal`, line 2 of In[2]: `return 1 / x`."),
        ("group", "ExceptionGroup", "ZeroDivisionError: division by zero, in `reciprocal`, line 2"),
        ("skipped cell", "NameError", "`plots` is not defined yet: run the cell under “"),
        ("skipped exercise", "TypeError", "`p99` is not written yet: finish 02.percentile first."),
        (
            "skipped exercise in a function",
            "TypeError",
            "`latencies` is not written yet: finish 02.latency first.",
        ),
        (
            "unknown name",
            "NameError",
            "name 'no_such_name' is not defined, in line 1: `no_such_name`. (`%tb`",
        ),
        ("unwritten name of no exercise", "TypeError", "`my_own` is not written yet."),
        ("unfinished", "Unfinished", "your answer to 05.limits: finish that first"),
        ("interrupted", "KeyboardInterrupt", "Interrupted, in line 3: `at_work.set(); time.sleep(0.05)`."),
        ("interrupted await", "CancelledError", "Interrupted, in line 2: `await asyncio.sleep(600)`."),
    ],
)
def test_an_error_is_one_line(
    outputs: dict[str, list[nbformat.NotebookNode]], cell: str, name: str, text: str
) -> None:
    (output,) = outputs[cell]
    assert output.output_type == "error"  # nbval and papermill look for it
    assert output.ename == name
    (message,) = output.traceback
    assert text in message
    assert "\n" not in message


def test_the_whole_traceback_is_at_hand(outputs: dict[str, list[nbformat.NotebookNode]]) -> None:
    (output,) = outputs["whole traceback"]
    assert "Traceback (most recent call last)" in "\n".join(output.traceback)


def test_a_syntax_error_looks_as_usual(outputs: dict[str, list[nbformat.NotebookNode]]) -> None:
    (output,) = outputs["syntax"]
    assert output.ename == "SyntaxError"
    assert "x = (1 +" in "\n".join(output.traceback)


def test_the_kernel_goes_on(outputs: dict[str, list[nbformat.NotebookNode]]) -> None:
    assert outputs["afterwards"][0].text == "alive\n"
