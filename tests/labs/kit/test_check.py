"""Wrong answers of every kind get a hint, right ones pass, and a bug in a check is reported as one."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from labs.kit import progress
from labs.kit.check import check

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("practice")


def starter(values): ...


def starter_with_docstring(values):
    """Return the mean."""


def starter_that_raises(values):
    raise NotImplementedError


def total(values):
    return sum(values)


def crash(values):
    nothing = []
    return sum(nothing) / len(nothing)


def right(values):
    return sum(values) / len(values)


def test_pass(capsys: pytest.CaptureFixture) -> None:
    result = check("01.times", [0.1])
    assert result
    assert str(result) == repr(result) == "PASSED 01.times — Time each token"
    assert capsys.readouterr().out == f"{result}\n"
    assert "PASSED" in result._repr_html_()


@pytest.mark.parametrize(
    ("exercise", "answer", "text"),
    [
        ("01.times", 3.5, "NOT YET 01.times: I expected a list of seconds, got float."),
        ("01.times", [1, -2], "NOT YET 01.times: No time is negative; you gave [1, -2]."),
        (
            "01.times",
            ...,
            "NOT YET 01.times: not written yet: I expected a list of seconds, got `...`.",
        ),
        ("01.times", None, "NOT YET 01.times: not written yet: I expected a list of seconds, got None."),
        ("01.mean", starter, "NOT YET 01.mean: not written yet: The mean of 2 and 4 is 3."),
        ("01.mean", starter_with_docstring, "NOT YET 01.mean: not written yet: The mean of 2 and 4 is 3."),
        ("01.mean", starter_that_raises, "NOT YET 01.mean: not written yet: Write the mean"),
        ("02.lenient", ..., "NOT YET 02.lenient: not written yet: Anything goes"),
        ("01.mean", total, "NOT YET 01.mean: That is the sum. Divide by how many there are."),
        ("01.mean", lambda values: 7, "NOT YET 01.mean: The mean of 2 and 4 is 3."),
    ],
)
def test_hint(exercise: str, answer: object, text: str) -> None:
    result = check(exercise, answer)
    assert not result
    assert str(result) == text


def test_right_function_passes() -> None:
    assert check("01.mean", right)


def test_learners_exception_names_their_line() -> None:
    line = crash.__code__.co_firstlineno + 2
    text = str(check("01.mean", crash))
    assert text == (
        "NOT YET 01.mean: your code raised ZeroDivisionError: division by zero, "
        f"in `crash`, line {line} of test_check.py: `return sum(nothing) / len(nothing)`"
    )


def test_learners_exception_inside_a_library_names_their_line() -> None:
    def parse(values):
        import json

        return json.loads("{")

    assert "`return json.loads(" in str(check("01.mean", parse))


def test_bug_in_the_check_is_told_apart() -> None:
    result = check("02.broken", 1)
    assert not result
    assert str(result).startswith("CHECK FAILED 02.broken: the check itself failed")
    assert "KeyError: 'oops' (checks.py, line" in str(result)
    assert "not written yet" in str(check("02.broken", ...))


def test_repeated_mistake_gets_the_next_hint() -> None:
    texts = [str(check("01.times", answer)).partition(": ")[2] for answer in (1, 2, "x", (), 1)]
    first = ["I expected a list of seconds, got int.", "Use a list.", "[0.1, 0.2]"]
    assert texts == [*first, first[2], first[2]]
    assert "negative" in str(check("01.times", [-1]))
    assert str(check("01.times", 1)).endswith(first[0])
    assert check("01.times", [])
    assert str(check("01.times", 1)).endswith(first[0])


def test_html_is_escaped_and_offers_another_hint() -> None:
    html = check("01.times", "<script>")._repr_html_()
    assert "another hint" in html
    html = check("01.times", [-1, "<b>`x`"])._repr_html_()
    assert "<b>`x`" not in html


def test_unknown_exercise() -> None:
    with pytest.raises(ValueError, match=r"no exercise '01.time'. Did you mean '01.times'"):
        check("01.time", 1)


def test_an_unknown_id_is_answered_though_another_lesson_cannot_be_imported(practice: Path) -> None:
    (practice / "b" / "checks.py").write_text("import nowhere_to_be_found")
    with pytest.raises(ValueError, match=r"no exercise '07.times'. Did you mean '01.times'"):
        check("07.times", 1)
    assert check("01.times", [0.1])


def test_a_check_imports_the_room_of_its_lesson_alone() -> None:
    """It imports no PyTorch, transformers or vLLM either: lesson 00 checks an answer without them."""
    code = "import sys; from labs.kit.check import check; check('00.card', 0, ''); print(*sys.modules)"
    line = [sys.executable, "-c", code]
    result = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    modules = set(result.stdout.split())
    assert "labs.preflight.checks" in modules and "NOT YET 00.card" in result.stdout
    rooms = {name for name in modules if re.fullmatch(r"labs\.\w+", name)}
    assert rooms == {"labs.kit", "labs.preflight"}
    heavy = {"torch", "transformers", "vllm", "IPython", "matplotlib", "pandas", "httpx"}
    assert modules.isdisjoint(heavy)


def test_full_disk_does_not_change_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(progress, "write_atomic", full)
    assert check("01.times", [1])
    assert "could not be saved" in capsys.readouterr().out


def test_error_inside_a_checks_module_is_not_hidden(practice: Path) -> None:
    (practice / "a" / "checks.py").write_text("import nowhere_to_be_found")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        check("01.times", 1)
