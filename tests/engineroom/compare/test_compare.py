"""Engines side by side: each really runs in a process of its own, and none is left running."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import psutil
import pytest

from engineroom.compare import BatchWorkload, CompareError, EngineSettings, compare, measure
from engineroom.compare.engine_process import BatchResult, EngineProcess
from engineroom.engine.directory import EngineDir
from engineroom.kit import process
from engineroom.kit.process import Server, ServerFailed
from tests.engineroom.engine.conftest import COURSE, checkpoint, engine

__all__ = ["checkpoint", "engine"]

WORKLOADS = [BatchWorkload(1, 5, 4), BatchWorkload(3, 5, 4)]


def course_settings(engine_dir: Path) -> EngineSettings:
    return EngineSettings(
        model_dir=COURSE,
        engine_dir=engine_dir,
        dtype="float32",
        device="cpu",
        kv_cache_tokens=600,
        max_batch_size=6,
        max_seq_len=256,
        max_num_tokens=48,
        threads=1,
    )


class RecordingProcess(EngineProcess):
    """Records the engine, the number of prompts and the number of tokens of each turn; may hide tokens."""

    turns: ClassVar[list[tuple[str, int, int]]] = []
    hidden_tokens: ClassVar[int] = 0

    def run(self, prompts: list[list[int]], max_tokens: int) -> BatchResult:
        self.turns.append((self.name, len(prompts), max_tokens))
        result = super().run(prompts, max_tokens)
        num_tokens = [count - self.hidden_tokens for count in result.num_tokens]
        return BatchResult(seconds=result.seconds, num_tokens=num_tokens)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[RecordingProcess]:
    RecordingProcess.turns.clear()
    monkeypatch.setattr(measure, "EngineProcess", RecordingProcess)
    return RecordingProcess


def running_engines() -> list[Server]:
    return [server for server in process.running() if server.name.startswith("compare ")]


@pytest.mark.timeout(400)
def test_engines_take_turns_and_the_first_round_is_not_counted(
    engine: EngineDir, recording: type[RecordingProcess], capfd: pytest.CaptureFixture[str]
) -> None:
    """Ours, the same without the compiler, and transformers."""
    names = ["aot", "eager", "transformers"]
    comparison = compare(course_settings(engine.path), WORKLOADS, names, rounds=2)
    assert recording.turns == [
        (name, workload.streams, max_tokens)
        for workload in WORKLOADS
        for _ in range(3)
        for name in names
        for max_tokens in (1, 4)
    ]
    for workload in WORKLOADS:
        counts = {name: len(rates) for name, rates in comparison.rates[workload].items()}
        assert counts == dict.fromkeys(names, 2)
        assert all(min(seconds) > 0 for seconds in comparison.ttft[workload].values())
    rates = comparison.rates[WORKLOADS[1]]
    ratio = rates["aot"][1] / rates["eager"][1]
    assert comparison.ratios(WORKLOADS[1], "eager")["aot"][1] == pytest.approx(ratio)
    assert all(0 < comparison.load_seconds[name] <= comparison.start_seconds[name][0] for name in names)
    assert all(10**8 < comparison.peak_memory[name] < 10**10 for name in names)
    assert "transformers: first token" in capfd.readouterr().out
    assert not running_engines()


def test_an_engine_that_answers_too_little_is_found_out(
    engine: EngineDir, recording: type[RecordingProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "hidden_tokens", 1)
    with pytest.raises(CompareError, match=r"aot answered with \[0\] tokens; each answer should have 1"):
        compare(course_settings(engine.path), WORKLOADS, ["aot"], log=lambda _: None)
    assert not running_engines()


@pytest.mark.parametrize(
    ("engines", "rounds", "message"),
    [(["aot", "tensorrt"], 5, "Unknown engine tensorrt"), (["aot"], 0, "0 rounds")],
)
def test_what_cannot_be_compared(engines: list[str], rounds: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(CompareError, match=message):
        compare(course_settings(tmp_path), WORKLOADS, engines, rounds=rounds)


def test_an_engine_that_does_not_load_says_why_and_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match=r"compare aot did not start(?s:.)*EngineError: .*config.json"):
        EngineProcess("aot", course_settings(tmp_path))
    assert not running_engines()


def test_an_engine_that_fails_at_work_says_why(engine: EngineDir) -> None:
    too_long = [1] * 300
    with EngineProcess("aot", course_settings(engine.path)) as aot:
        with pytest.raises(CompareError, match=r"aot failed: ContextLengthError: .*max_input_len.*\.log"):
            aot.run([too_long], 1)
        assert aot.run([[1, 2, 3]], 4).num_tokens == [4]  # the next batch runs
    assert not running_engines()


def test_an_engine_that_dies_at_work_shows_the_end_of_its_log(engine: EngineDir) -> None:
    with EngineProcess("aot", course_settings(engine.path)) as aot:
        psutil.Process(aot.server.pid).kill()
        with pytest.raises(CompareError, match=r"aot did not answer(?s:.)*engineroom.compare.worker"):
            aot.run([[1, 2, 3]], 4)
    assert not running_engines()


def test_settings_are_those_that_the_engine_was_built_for(engine: EngineDir) -> None:
    assert EngineSettings.of_engine(engine, COURSE, kv_cache_tokens=600, threads=1) == course_settings(
        engine.path
    )
