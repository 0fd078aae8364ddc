"""Two servers on the same requests in turn: the engine's and the real vLLM."""

from __future__ import annotations

import pytest

from engineroom.compare import CompareError, Workload
from engineroom.compare.served import served
from engineroom.engine.directory import EngineDir
from engineroom.kit.process import Server
from engineroom.openai.start import serve_engine
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]


def test_servers_take_turns_and_the_first_round_is_not_counted(vllm: Server, engine: EngineDir) -> None:
    said: list[str] = []
    with serve_engine(engine.path, name="served", served_model_name="course") as ours:
        servers = {"aot": ours, "vllm": vllm}
        made = served(servers, Workload(3, 5, 8), 2, "course", said.append)
        assert list(made) == ["aot", "vllm"] and all(len(rounds) == 2 for rounds in made.values())
        for rate, ttft, gap in [*made["aot"], *made["vllm"]]:
            whole = 3 * 8 / rate * 1.000001
            assert 0 < ttft <= whole and 0 <= gap <= whole  # tokens that come together have no gap
        assert said[0].startswith("3x5-8, aot: ")
        with pytest.raises(CompareError, match=r"aot gave 0 of 300 tokens: .*max_seq_len"):
            served(servers, Workload(1, 5, 300), 1, "course")
