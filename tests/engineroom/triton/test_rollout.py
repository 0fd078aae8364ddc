"""New versions while clients ask: each request gets one whole answer, of one version, and the old process goes."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import openai
import pytest
from safetensors.torch import load_file, save_file

from engineroom.checkpoint import Checkpoint
from engineroom.engine.build import refit
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.kit.process import Server
from engineroom.metrics.prometheus import fetch
from engineroom.openai.text import Vocabulary
from engineroom.triton.client import TritonBackend
from engineroom.triton.deployment import DeploymentError, describe
from engineroom.triton.frontend import serve_openai
from engineroom.triton.render import render
from engineroom.triton.rollout import roll_out, versions
from engineroom.triton.server import Triton
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.triton.conftest import CACHE, SETTINGS, Start, commands, stream

PROMPTS = [[300 + n, 301, 302] for n in range(5)]
REQUESTS = 1000
SHORT, LONG = 4, 200  # tokens


@pytest.fixture(scope="module")
def other(engine: EngineDir, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> EngineDir:
    """The same code with weights that give other answers."""
    folder = tmp_path_factory.mktemp("other")
    changed = Path(shutil.copytree(checkpoint.directory, folder / "checkpoint"))
    weights = load_file(changed / "rank0.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].roll(1, 0)
    save_file(weights, changed / "rank0.safetensors")
    return refit(engine.path, changed, folder / "engine")


@pytest.fixture(scope="module")
def repository(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = describe(engine_dir=engine.path, **SETTINGS)
    return render(made, tmp_path_factory.mktemp("rollout") / "repository")


@pytest.fixture(scope="module")
def triton(start: Start, repository: Path) -> Iterator[Triton]:
    with start(repository) as running:
        yield running


@pytest.fixture(scope="module")
def door(triton: Triton, engine: EngineDir) -> Iterator[Server]:
    with serve_openai(triton, engine.path, name="openai rollout") as server:
        yield server


def programs(triton: Triton) -> list[str]:
    """The engine's processes, by the version folder's program."""
    return [line.split("/")[-2] for line in commands(triton).values() if "/tensorrt_llm/" in line]


def snapshot(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


Words = list[str]


class Crowd:
    """Clients of both doors, each with one request after the other; `found` has every answer, and which engines
    might have given it.
    """

    def __init__(self, triton: Triton, door: Server, vocabulary: Vocabulary) -> None:
        self.backend = TritonBackend(triton.grpc, triton.url, triton.metrics)
        self.openai = openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
        self.vocabulary, self.found = vocabulary, list[tuple[int, int, set[int], Words]]()
        self.serving, self.stop = {0}, False

    async def grpc(self, prompt: int, count: int) -> Words:
        stream = self.backend.generate(PROMPTS[prompt], SamplingParams(max_tokens=count))
        return self.words([output.token async for output in stream])

    async def http(self, prompt: int, count: int) -> Words:
        said = await self.openai.completions.create(
            model="tensorrt_llm", prompt=PROMPTS[prompt], max_tokens=count, temperature=0, stream=True, logprobs=0,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        return [token async for chunk in said for token in chunk.choices[0].logprobs.tokens]

    def words(self, tokens: list[int]) -> Words:
        return [self.vocabulary.tokenizer.decode([token]) for token in tokens]

    async def client(self, ask: Callable[[int, int], Awaitable[Words]], count: int) -> None:
        for number in itertools.count():
            if self.stop:
                return
            prompt, before = number % len(PROMPTS), self.serving
            words = await ask(prompt, count)
            self.found.append((prompt, count, before | self.serving, words))

    def steady(self, version: int) -> None:
        """Until a request began and was answered while only `version` served."""
        answered = eventually(lambda: any(might == {version} for _, _, might, _ in self.found))
        assert answered, f"version {version} answered nobody"

    async def during(self, change: Callable[[], object]) -> None:
        """All clients while `change` runs in a thread, and until there are REQUESTS answers."""
        kinds = [(self.grpc, SHORT), (self.http, SHORT)] * 7 + [(self.grpc, LONG), (self.http, LONG)]
        clients = [asyncio.create_task(self.client(*kind)) for kind in kinds]
        try:
            await asyncio.to_thread(change)
            while len(self.found) < REQUESTS and not any(one.done() for one in clients):
                await asyncio.sleep(0.05)
        finally:
            self.stop = True
            await asyncio.gather(*clients)


@pytest.mark.timeout(400)
def test_no_request_is_lost_while_engines_are_rolled_out(
    triton: Triton, door: Server, repository: Path, engine: EngineDir, other: EngineDir,
    vocabulary: Vocabulary,
) -> None:  # fmt: skip
    crowd, engines, served = Crowd(triton, door, vocabulary), (engine, other), list[list[str]]()

    def twice() -> None:
        for old, new in ((0, 1), (1, 0)):
            crowd.steady(old)
            crowd.serving = {old, new}
            roll_out(triton, repository, engine_dir=engines[new].path)
            crowd.serving = {new}
            served.append(programs(triton))

    asyncio.run(crowd.during(twice))
    right: dict[tuple[int, int], list[Words]] = {}
    for made in engines:
        alone = Executor(made, KvCacheConfig(max_tokens=CACHE, enable_block_reuse=False))
        for count in (SHORT, LONG):
            for prompt, tokens in enumerate(alone.generate(PROMPTS, SamplingParams(max_tokens=count))):
                right.setdefault((prompt, count), []).append(crowd.words(tokens))
    given = Counter[tuple[int, bool]]()
    for prompt, count, might, words in crowd.found:
        version = right[prompt, count].index(words)
        assert version in might
        given[version, len(might) == 1] += 1
    assert given.total() >= REQUESTS and len(given) == 4  # of both versions, during the changes and besides
    assert served == [["2"], ["3"]]
    assert versions(repository / "tensorrt_llm") == [3]
    samples = [sample for sample in fetch(triton.metrics) if sample.name.startswith("nv_trt_llm")]
    assert {sample.labels["version"] for sample in samples} == {"3"}


def test_an_engine_that_is_refused_leaves_the_old_one_serving(
    triton: Triton, repository: Path, other: EngineDir, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(other.path, tmp_path / "broken"))
    with (broken / "rank0_managed_weights.safetensors").open("ab") as file:
        file.write(b"more")
    before, files = programs(triton), snapshot(repository)
    with pytest.raises(DeploymentError, match=r"serves on\. Triton says: .* is not the file that was built"):
        roll_out(triton, repository, engine_dir=broken)
    assert programs(triton) == before and snapshot(repository) == files
    assert stream(triton, "tensorrt_llm", input_ids=[5, 6], input_lengths=2, request_output_len=3)


def test_a_model_without_an_engine_is_no_target(triton: Triton, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="has no gpt_model_path"):
        roll_out(triton, repository, "preprocessing", engine_dir=tmp_path)
    with pytest.raises(DeploymentError, match="no version to take over from"):
        roll_out(triton, tmp_path, engine_dir=tmp_path)
