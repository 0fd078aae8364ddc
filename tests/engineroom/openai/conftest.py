from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engineroom.engine.directory import TOKENIZER, EngineDir
from engineroom.kit.process import Server
from engineroom.metrics import Sample, fetch, total
from engineroom.openai.start import serve_engine
from engineroom.openai.text import Vocabulary
from tests.engineroom.engine.conftest import checkpoint, engine

__all__ = ["checkpoint", "engine"]
Start = Callable[..., Server]
CACHE_TOKENS = 1024  # fewer than the six sequences of 256 tokens that the engine was built for


@pytest.fixture(scope="session")
def vocabulary(engine: EngineDir) -> Vocabulary:
    return Vocabulary(engine.path / TOKENIZER)


@pytest.fixture(scope="session")
def start(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Starts `engineroom serve`; the caller stops it."""
    home = str(tmp_path_factory.mktemp("home"))

    def start_server(**options: object) -> Server:
        defaults = {"served_model_name": "course", "max_tokens_in_paged_kv_cache": CACHE_TOKENS}
        # only while the server starts: the build cache is in this folder too
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ENGINEROOM_HOME", home)
            return serve_engine(engine.path, **(defaults | options))

    return start_server


@pytest.fixture(scope="module")
def server(start: Start) -> Iterator[Server]:
    with start() as server:
        yield server


def numbers(samples: list[Sample]) -> dict[str, float]:
    """Values of /metrics by name, and those of `request_success_total` by `finished_reason` too."""
    success = [sample for sample in samples if sample.name == "engineroom:request_success_total"]
    return total(samples, "engineroom:") | {s.labels["finished_reason"]: s.value for s in success}


def scrape(server: Server) -> dict[str, float]:
    return numbers(fetch(server))
