from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from engineroom.compare import CompareError, Job, Workload, compare, measure
from engineroom.compare.prepare import workload
from engineroom.compare.worker import Run, Worker
from engineroom.kit import process
from engineroom.kit.process import Server, ServerFailed
from tests.engineroom.engine.conftest import COURSE, checkpoint, engine  # noqa: F401

LOADS = [Workload(1, 5, 4), Workload(3, 5, 4)]


def job(folder: Path) -> Job:
    return Job(COURSE, folder, "float32", "cpu", 600, 6, 256, 48, 1)


class Noted(Worker):
    """Whose turn it was, for how many prompts and how many tokens."""

    turns: ClassVar[list[tuple[str, int, int]]] = []
    lost: ClassVar[int] = 0

    def run(self, prompts: list[list[int]], max_tokens: int) -> Run:
        self.turns.append((self.name, len(prompts), max_tokens))
        seconds, tokens = super().run(prompts, max_tokens)
        return Run(seconds, [count - self.lost for count in tokens])


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> type[Noted]:
    Noted.turns.clear()
    monkeypatch.setattr(measure, "Worker", Noted)
    return Noted


def running() -> list[Server]:
    """Workers that were not stopped."""
    return [one for one in process.running() if one.name.startswith("compare ")]


@pytest.mark.timeout(400)
def test_engines_take_turns_and_the_first_round_is_not_counted(engine, noted: type[Noted], capfd) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    """Ours, the same without the compiler, and transformers, each really run in a process of its own; none is left."""
    names = ["aot", "eager", "transformers"]
    made = compare(job(engine.path), LOADS, names, rounds=2)
    assert noted.turns == [
        (name, load.streams, tokens)
        for load in LOADS
        for _ in range(3)
        for name in names
        for tokens in (1, 4)
    ]
    for load in LOADS:
        assert {name: len(rates) for name, rates in made.rates[load].items()} == dict.fromkeys(names, 2)
        assert all(min(first) > 0 for first in made.first[load].values())
    ratio = made.rates[LOADS[1]]["aot"][1] / made.rates[LOADS[1]]["eager"][1]
    assert made.ratios(LOADS[1], "eager")["aot"][1] == pytest.approx(ratio)
    assert all(0 < made.load[name] <= made.starts[name][0] for name in names)
    assert all(10**8 < made.memory[name] < 10**10 for name in names)
    assert "transformers: first token" in capfd.readouterr().out
    assert not running()


def test_an_engine_that_answers_too_little_is_found_out(
    engine,  # type: ignore[no-untyped-def] # noqa: F811
    noted: type[Noted],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(noted, "lost", 1)
    with pytest.raises(CompareError, match=r"aot answered \[0\] tokens, asked were 1"):
        compare(job(engine.path), LOADS, ["aot"], say=lambda line: None)
    assert not running()


@pytest.mark.parametrize(
    ("engines", "rounds", "said"), [(["aot", "tensorrt"], 5, "No engine tensorrt"), (["aot"], 0, "0 rounds")]
)
def test_what_cannot_be_compared(engines: list[str], rounds: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=said):
        compare(job(tmp_path), LOADS, engines, rounds=rounds)


@pytest.mark.parametrize("text", ["16", "16x128", "0x128-64", "16x128-64-2", ""])
def test_a_workload_that_is_none(text: str) -> None:
    with pytest.raises(CompareError, match="16x128-64"):
        workload(text)


def test_a_workload() -> None:
    assert workload(" 16x128-64") == Workload(16, 128, 64)


def test_an_engine_that_does_not_load_says_why_and_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"compare aot did not start(?s:.)*EngineError: .*config.json"):
        Worker("aot", job(tmp_path))
    assert not running()


def test_an_engine_that_fails_at_work_says_why(engine) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    with Worker("aot", job(engine.path)) as worker, pytest.raises(RuntimeError) as found:
        worker.run([[1] * 300], 1)
    assert "aot failed. Its last words" in str(found.value) and "max_input_len" in str(found.value)
    assert not running()
