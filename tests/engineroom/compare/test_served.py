"""Two servers answer the same requests in turn: the engine's own and the real vLLM."""

from __future__ import annotations

import pytest

from engineroom.compare import BatchWorkload, CompareError
from engineroom.compare.served import compare_servers
from engineroom.engine.directory import EngineDir
from engineroom.kit.process import Server
from engineroom.openai.start import serve_engine
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]


def test_servers_take_turns_and_the_first_round_is_not_counted(vllm: Server, engine: EngineDir) -> None:
    lines: list[str] = []
    with serve_engine(engine.path, name="served", served_model_name="course") as aot:
        servers = {"aot": aot, "vllm": vllm}
        samples = compare_servers(servers, BatchWorkload(3, 5, 8), 2, "course", lines.append)
        assert list(samples) == ["aot", "vllm"]
        assert all(len(rounds) == 2 for rounds in samples.values())
        for rate, ttft, gap in [*samples["aot"], *samples["vllm"]]:
            seconds = 3 * 8 / rate * 1.000001
            assert 0 < ttft <= seconds
            assert 0 <= gap <= seconds  # tokens that arrive together have no gap
        assert lines[0].startswith("3x5-8, aot: ")
        with pytest.raises(CompareError, match=r"aot did not answer: HTTP 400.*max_seq_len"):
            compare_servers(servers, BatchWorkload(1, 5, 300), 1, "course")
