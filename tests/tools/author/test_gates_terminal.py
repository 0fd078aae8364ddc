"""What looks like a command line in a lesson can be typed as it stands."""

from __future__ import annotations

import pytest

from tests.tools.author.lesson_case import LessonCase, printed

WRONG_OUTPUT = [
    "vllm serve /models/course --port '{port}'",
    "VLLM_NO_USAGE_STATS=1 vllm serve x --port {port}",
    "first\nengineroom serve --engine {engine_dir}",
    "trtllm-serve serve {engine}",
]
RIGHT_OUTPUT = [
    "vllm serve /models/course --port 8000",
    "vllm: ready at {port}",
    "{'a': 1}",
    "engineroom run",
]
ACTIVATE = "Outside JupyterLab, run `source .venv/bin/activate` first."


def messages(case: LessonCase) -> list[str]:
    return [violation.message for violation in case.violations() if violation.rule == "terminal"]


@pytest.mark.parametrize("text", WRONG_OUTPUT)
def test_a_printed_command_with_a_placeholder(text: str, case: LessonCase) -> None:
    case.add_code("print(command)", printed(text))
    [message] = messages(case)
    assert "print a value that can be typed" in message


@pytest.mark.parametrize("text", RIGHT_OUTPUT)
def test_a_printed_command_that_can_be_typed(text: str, case: LessonCase) -> None:
    case.add_code("print(command)", printed(text))
    assert messages(case) == []


def test_alternatives_are_a_pipe(case: LessonCase) -> None:
    case.add_text("**Keep:** `engineroom checkpoint convert | inspect` and `engineroom machine`.")
    [message] = messages(case)
    assert "convert | inspect` is a pipe" in message


def test_whoever_is_sent_into_a_terminal_is_told_what_to_activate(case: LessonCase) -> None:
    case.add_text("Type it into a terminal.")
    assert "source .venv/bin/activate" in messages(case)[0]
    case.add_text(ACTIVATE)
    assert messages(case) == []
