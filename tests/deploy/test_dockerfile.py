"""Rules for the Dockerfile; deploy/build-cpu-image.sh shows that it builds and runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tools.author.files import ROOT

TARGETS = ["cpu", "gpu"]
Instruction = tuple[str, str]  # keyword in capitals, the arguments on one line


def instructions(text: str) -> list[Instruction]:
    """Return the instructions of a Dockerfile without comments, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(keyword.upper(), arguments.strip()) for keyword, _, arguments in pairs]


def stages(text: str) -> dict[str, list[Instruction]]:
    """Return the instructions of each ``FROM … AS name``, by name; FROM is the first of each."""
    by_name: dict[str, list[Instruction]] = {}
    name = ""
    for keyword, arguments in instructions(text):
        if keyword == "FROM":
            name = arguments.split(" AS ")[1]
        if name:
            by_name.setdefault(name, []).append((keyword, arguments))
    return by_name


TEXT = (ROOT / "Dockerfile").read_text()
STAGES = stages(TEXT)


def test_targets() -> None:
    assert list(STAGES) == TARGETS


def test_base_images_have_a_fixed_tag() -> None:
    bases = [
        arguments.split("=")[1]
        for keyword, arguments in instructions(TEXT)
        if keyword == "ARG" and "_BASE=" in arguments
    ]
    assert len(bases) == len(TARGETS)
    for base in bases:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", base), f"{base} has no tag"
        assert not base.endswith(":latest")


@pytest.mark.parametrize("target", TARGETS)
def test_learner_is_not_root(target: str) -> None:
    users = [arguments for keyword, arguments in STAGES[target] if keyword == "USER"]
    assert users[-1] == "1000:1000"


@pytest.mark.parametrize("target", TARGETS)
def test_healthcheck_asks_jupyter(target: str) -> None:
    [check] = [arguments for keyword, arguments in STAGES[target] if keyword == "HEALTHCHECK"]
    assert json.loads(check.partition(" CMD ")[2])[-1] == "http://127.0.0.1:8888/api"


@pytest.mark.parametrize("target", TARGETS)
def test_work_is_in_the_volume(target: str) -> None:
    [volume] = [arguments for keyword, arguments in STAGES[target] if keyword == "VOLUME"]
    [command] = [json.loads(arguments) for keyword, arguments in STAGES[target] if keyword == "CMD"]
    assert command[command.index("--work") + 1].startswith(f"{volume}/")
    environment = " ".join(arguments for keyword, arguments in STAGES[target] if keyword == "ENV")
    assert f"ENGINEROOM_HOME={volume}/" in environment


@pytest.mark.parametrize("target", TARGETS)
def test_environment_comes_before_the_lessons(target: str) -> None:
    steps = [(keyword, arguments) for keyword, arguments in STAGES[target]]
    install = next(
        i for i, (keyword, arguments) in enumerate(steps) if keyword == "RUN" and "bootstrap.py" in arguments
    )
    everything = steps.index(("COPY", "--chown=1000:1000 . ."))
    assert install < everything


@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_the_setup_reads_is_copied_before_it(target: str) -> None:
    import bootstrap

    copied = [
        arguments.split()[1:-1]
        for keyword, arguments in STAGES[target]
        if keyword == "COPY" and ". ." not in arguments
    ]
    sources = [source for paths in copied for source in paths]
    for name in bootstrap.INPUTS:
        assert any(Path(name).is_relative_to(source) for source in sources), f"{name} comes too late"


def test_what_is_copied_exists() -> None:
    for keyword, arguments in instructions(TEXT):
        if keyword == "COPY":
            for source in arguments.split()[1:-1]:
                assert (ROOT / source).exists(), f"COPY {source}: there is no such thing"


def test_nothing_is_fetched_or_baked_in() -> None:
    for keyword, arguments in instructions(TEXT):
        assert keyword != "ADD", "ADD fetches and unpacks unseen; COPY does not"
        assert "TOKEN" not in arguments.upper(), (
            f"a token does not belong into an image: {keyword} {arguments}"
        )
        assert "index-url" not in arguments, "the lock and bootstrap.py say where packages come from"
        assert "sudo" not in arguments
    assert "https://" not in TEXT


def test_dockerignore_covers_gitignore() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".*", "work", "out"} <= set(ignored)  # .* takes .git and .venv
    for pattern in (ROOT / ".gitignore").read_text().split():
        name = pattern.strip("/")
        assert name.startswith(".") or {name, f"**/{name}"} & set(ignored), (
            f"{pattern} would get into the image"
        )


def test_compose_serves_this_machine_only() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert list(compose["services"]) == TARGETS
    for name, service in compose["services"].items():
        assert service["build"]["target"] == name
        assert (ROOT / "deploy" / service["build"]["context"]).resolve() == ROOT
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        [volume] = [arguments for keyword, arguments in STAGES[name] if keyword == "VOLUME"]
        assert service["volumes"] == [f"engineroom:{volume}"]


def test_conda_brings_what_the_setup_asks_for() -> None:
    import bootstrap

    expected = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python={bootstrap.PYTHON_VERSION}" in expected
    assert {"make", "gxx", "libnuma"} <= set(
        expected
    )  # gxx, not gxx_linux-64: only that one has a command g++
