"""The repository's own files are valid: workflow, issue forms, citation, hooks, development container, guides."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHECK = ROOT / ".venv" / "check" / "bin"
FORMS = [f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "lesson", "proposal")]
SCHEMAS = {
    "vendor.github-workflows": [".github/workflows/ci.yml"],
    "vendor.github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "vendor.github-issue-forms": FORMS,
    "vendor.citation-file-format": ["CITATION.cff"],
    "vendor.compose-spec": ["deploy/compose.yaml", "deploy/monitoring/compose.yaml"],
}
GUIDES = ["README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md"]


def run(tool: str, *arguments: str) -> None:
    result = subprocess.run([CHECK / tool, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def loaded(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


HOOKS = {hook["id"]: hook for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_issue_form_is_checked() -> None:
    files = {str(path.relative_to(ROOT)) for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir()}
    assert files == {*FORMS, ".github/ISSUE_TEMPLATE/config.yml"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schema(schema: str) -> None:
    run("check-jsonschema", "--builtin-schema", schema, *SCHEMAS[schema])


def test_a_wrong_workflow_fails_the_schema(tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text((ROOT / ".github/workflows/ci.yml").read_text().replace("runs-on", "runs_on"))
    with pytest.raises(AssertionError, match="runs_on"):
        run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(wrong))


def test_the_workflow_runs_what_ci_runs() -> None:
    job = loaded(".github/workflows/ci.yml")["jobs"]["test"]
    steps = [step.get("run", "") for step in job["steps"]]
    assert ".ci/run" in steps
    assert job["timeout-minutes"] == 90
    [packages] = re.findall(r"sudo apt-get install ([\w\d +-]+)", (ROOT / "README.md").read_text())
    assert any(re.search(rf"apt-get install --yes {re.escape(packages)}$", step, re.M) for step in steps)


def test_the_workflow_is_safe() -> None:
    """Least permissions, actions by commit, no credentials in the checkout, no text of a pull request in a shell."""
    run("zizmor", "--offline", "--pedantic", ".github/workflows")


def test_hooks() -> None:
    run("pre-commit", "validate-config")
    targets = set(re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text()))
    for name, hook in HOOKS.items():
        program, *arguments = hook["entry"].split()
        assert hook["language"] == "system", f"{name} would download its tool"
        if program == "make":
            assert arguments[-1] in targets, f"{name}: the Makefile has no target {arguments[-1]}"
        else:
            assert (ROOT / program).is_file(), f"{name}: there is no {program}"


def test_citation_and_changelog_name_the_version() -> None:
    version, citation = PROJECT["version"], loaded("CITATION.cff")
    assert citation["version"] == version
    assert citation["license"] == PROJECT["license"]
    released = f"## [{version}] - {citation['date-released']}"
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    assert lines.index("## [Unreleased]") < lines.index(released)


def test_the_development_container_is_the_cpu_target() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    build = container["build"]
    dockerfile = ROOT / ".devcontainer" / build["dockerfile"]
    assert f" AS {build['target']}\n" in dockerfile.read_text()
    assert (ROOT / ".devcontainer" / build["context"]).resolve() == ROOT
    assert f"useradd --uid 1000 --create-home {container['remoteUser']}" in dockerfile.read_text()


@pytest.mark.parametrize("name", GUIDES)
def test_links_of_a_guide_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_editors_indent_as_ruff_formats() -> None:
    text = (ROOT / ".editorconfig").read_text()
    assert text.startswith("root = true\n")
    assert re.search(r"(?s)\[\*\].*?indent_size = 4\nindent_style = space", text)
    assert re.search(r"(?s)\[Makefile\].*?indent_style = tab", text)
