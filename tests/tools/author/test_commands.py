"""Every command that a page shows exists and accepts its flags; the gate notices a wrong name and a wrong flag."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.author.files import ROOT
from tools.author.gates.commands import page_problems, shown_commands
from tools.author.gates.pages import page_texts


def test_every_command_on_every_page_exists() -> None:
    violations = page_problems()
    assert not violations, "\n".join(map(str, violations))


def test_the_pages_that_show_commands_are_read() -> None:
    files = [command.page.file for command in shown_commands()]
    pages = [
        "README.md",
        "CONTRIBUTING.md",
        "docs/maintainers.md",
        "deploy/README.md",
        "models/course/README.md",
    ]
    lessons = ["solutions/04_convert_checkpoint.py", "solutions/10_deploy_with_triton.py"]
    modules = ["engineroom/openai/start.py", "tools/timing/lessons.py", "tests/gpu/engine.py"]
    assert {*pages, *lessons, *modules, "Makefile", "deploy/build-cpu-image.sh"} <= set(files)
    assert len(files) > 80
    assert {page.file for page in page_texts(ROOT) if page.file.startswith("docs/")} >= {"docs/monitoring.md"}


RIGHT = [
    "`engineroom build --checkpoint_dir C --output_dir E`",
    "`engineroom build | refit | inspect`",
    "`engineroom checkpoint convert | diff`",
    "`engineroom --install-completion`",
    "`engineroom lessons NN --execute`",
    "`engineroom trtllm check -- trtllm-build --checkpoint_dir C --max_output_len 5`",
    "`engineroom COMMAND --any-flag`",
    "`from engineroom import metrics`",
    "`python -m engineroom.vllm measure --help`",
    "`python -m tools.training.card`",
    "`python -m pytest -k executor`",
    "`make test ARGS=\"-k 'not browser'\"`",
    "    make lab        # makes nothing else\n    .venv/bin/engineroom machine | head -3\n",
    "    docker run --rm engineroom:cpu engineroom bill --gpu H200 > bill.txt\n",
    "    engineroom vllm measure \\\n      --help\n",
    "engineroom bild is prose here, and so is make haste",
]
WRONG = {
    "`engineroom bild`": "no command 'bild'",
    "`engineroom checkpoint convrt --tp_size 2`": "no command 'convrt'; there are convert",
    "`engineroom checkpoint convert | reverse`": "no command 'reverse'",
    "`engineroom build --checkpoint-dir C`": "'build' has no option --checkpoint-dir",
    "`engineroom lessons --run`": "'lessons' has no option --run",
    "`engineroom --quick`": "'engineroom' has no option --quick",
    "    ENGINEROOM_HOME=/tmp .venv/bin/engineroom vllm measure --userz 3\n": "has no option --userz",
    "    cd x && engineroom vllm \\\n      masure\n": "no command 'masure'",
    "`python -m labs.vllm measure`": "no module 'labs.vllm'",
    "`python -m engineroom.kit`": "no module 'engineroom.kit' that can be run",
    "`python -m engineroom.vllm masure`": "no command 'masure'",
    "`python3 -m tools.author.nowhere`": "no module",
    "`make haste`": "no target 'haste'",
    "    PATH=$PATH:x make haste ARGS=y\n": "no target 'haste'",
}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs" / "page.md"


@pytest.mark.parametrize("text", RIGHT)
def test_a_right_command_passes(text: str, page: Path) -> None:
    page.write_text(f"# A page\n\nRun\n\n{text}\n")
    assert page_problems(page.parents[1]) == []


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_command_is_named_with_its_place(text: str, page: Path) -> None:
    page.write_text(f"# A page\n\nRun\n\n{text}\n")
    [violation] = page_problems(page.parents[1])
    assert str(violation).startswith("docs/page.md:5: command: ")
    assert WRONG[text] in violation.message


LESSON = """\
# %% [markdown]
# # A lesson
# Run `engineroom bild`.

# %%
name = "x"
print(f"Next: engineroom checkpoint convrt {name}")

# %%
%time x = 1  # or `make haste`
"""
MODULE = (
    '"""`engineroom bild`: does nothing."""\n\nHINT = "run: engineroom lessons --run"  # not `make haste`\n'
)


@pytest.mark.parametrize(
    ("file", "text", "line_numbers"),
    [
        ("solutions/07_lesson.py", LESSON.replace("%time", "# %time"), [3, 7, 10]),
        ("engineroom/module.py", MODULE, [1, 3, 3]),
        ("tests/test_module.py", MODULE, [1]),
        ("deploy/run.sh", "#!/bin/sh\nengineroom bild\n", [1]),
    ],
)
def test_lessons_modules_and_scripts_are_pages_too(
    file: str, text: str, line_numbers: list[int], tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(text)
    files = [violation.file for violation in page_problems(tmp_path)]
    assert files == [f"{file}:{line}" for line in line_numbers]
