"""Roll-outs while clients send requests: each gets one whole answer, from one version, and the old process ends."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
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
from engineroom.triton.render import render, version_numbers
from engineroom.triton.rollout import roll_out
from engineroom.triton.server import Triton
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.triton.conftest import KV_CACHE_TOKENS, SETTINGS, StartTriton, commands, stream

PROMPTS = [[300 + index, 301, 302] for index in range(5)]
NUM_REQUESTS = 1000
SHORT, LONG = 4, 200  # tokens


@pytest.fixture(scope="module")
def refitted(
    engine: EngineDir, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> EngineDir:
    """An engine with the same code and other weights, which give other answers."""
    folder = tmp_path_factory.mktemp("refitted")
    checkpoint_dir = Path(shutil.copytree(checkpoint.directory, folder / "checkpoint"))
    weights = load_file(checkpoint_dir / "rank0.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"].roll(1, 0)
    save_file(weights, checkpoint_dir / "rank0.safetensors")
    return refit(engine.path, checkpoint_dir, folder / "engine")


@pytest.fixture(scope="module")
def repository(engine: EngineDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    deployment = describe(engine_dir=engine.path, **SETTINGS)
    return render(deployment, tmp_path_factory.mktemp("rollout") / "repository")


@pytest.fixture(scope="module")
def triton(start_triton: StartTriton, repository: Path) -> Iterator[Triton]:
    with start_triton(repository) as triton:
        yield triton


@pytest.fixture(scope="module")
def frontend(triton: Triton, engine: EngineDir) -> Iterator[Server]:
    with serve_openai(triton, engine.path, name="openai rollout") as server:
        yield server


def running_versions(triton: Triton) -> list[str]:
    """The version of each process that runs the model with the engine."""
    return [command.split("/")[-2] for command in commands(triton).values() if "/tensorrt_llm/" in command]


def snapshot(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


Texts = list[str]  # the text of each token


@dataclass
class Answer:
    """What a client got. `engines`: indices of the engines that may have served the request."""

    prompt: int
    max_tokens: int
    engines: set[int]
    texts: Texts


class Crowd:
    """Clients of Triton and of its frontend, each of which sends one request after the other.

    `serving` has the indices of the engines that may serve now: both of them during a roll-out.
    """

    def __init__(self, triton: Triton, frontend: Server, vocabulary: Vocabulary) -> None:
        self.backend = TritonBackend(triton.grpc, triton.url, triton.metrics)
        self.openai = openai.AsyncOpenAI(base_url=f"{frontend.url}/v1", api_key="none", max_retries=0)
        self.vocabulary = vocabulary
        self.answers: list[Answer] = []
        self.serving, self.stop = {0}, False

    async def generate_by_grpc(self, prompt: int, max_tokens: int) -> Texts:
        stream = self.backend.generate(PROMPTS[prompt], SamplingParams(max_tokens=max_tokens))
        return self.decode([output.token_id async for output in stream])

    async def generate_by_http(self, prompt: int, max_tokens: int) -> Texts:
        chunks = await self.openai.completions.create(
            model="tensorrt_llm", prompt=PROMPTS[prompt], max_tokens=max_tokens, temperature=0, stream=True,
            logprobs=0, extra_body={"ignore_eos": True},
        )  # fmt: skip
        return [text async for chunk in chunks for text in chunk.choices[0].logprobs.tokens]

    def decode(self, token_ids: list[int]) -> Texts:
        return [self.vocabulary.tokenizer.decode([token_id]) for token_id in token_ids]

    async def run_client(self, generate: Callable[[int, int], Awaitable[Texts]], max_tokens: int) -> None:
        for index in itertools.count():
            if self.stop:
                return
            prompt, serving_before = index % len(PROMPTS), self.serving
            texts = await generate(prompt, max_tokens)
            self.answers.append(Answer(prompt, max_tokens, serving_before | self.serving, texts))

    def wait_for_answer(self, engine: int) -> None:
        """Return when a request began and was answered while only this engine served."""
        answered = eventually(lambda: any(answer.engines == {engine} for answer in self.answers))
        assert answered, f"engine {engine} answered no request"

    async def run_during(self, change: Callable[[], object]) -> None:
        """Run all clients while `change` runs in a thread, and until there are NUM_REQUESTS answers."""
        short = [(self.generate_by_grpc, SHORT), (self.generate_by_http, SHORT)]
        long = [(self.generate_by_grpc, LONG), (self.generate_by_http, LONG)]
        clients = [asyncio.create_task(self.run_client(*arguments)) for arguments in short * 7 + long]
        try:
            await asyncio.to_thread(change)
            while len(self.answers) < NUM_REQUESTS and not any(client.done() for client in clients):
                await asyncio.sleep(0.05)
        finally:
            self.stop = True
            await asyncio.gather(*clients)


@pytest.mark.timeout(400)
def test_no_request_is_lost_while_engines_are_rolled_out(
    triton: Triton, frontend: Server, repository: Path, engine: EngineDir, refitted: EngineDir,
    vocabulary: Vocabulary,
) -> None:  # fmt: skip
    crowd, engines = Crowd(triton, frontend, vocabulary), (engine, refitted)
    versions_after: list[list[str]] = []

    def roll_out_and_back() -> None:
        for old, new in ((0, 1), (1, 0)):
            crowd.wait_for_answer(old)
            crowd.serving = {old, new}
            roll_out(triton, repository, engine_dir=engines[new].path)
            crowd.serving = {new}
            versions_after.append(running_versions(triton))

    asyncio.run(crowd.run_during(roll_out_and_back))
    expected: dict[tuple[int, int], list[Texts]] = defaultdict(list)  # by prompt and length: of each engine
    for engine_dir in engines:
        executor = Executor(engine_dir, KvCacheConfig(max_tokens=KV_CACHE_TOKENS, enable_block_reuse=False))
        for max_tokens in (SHORT, LONG):
            for prompt, token_ids in enumerate(
                executor.generate(PROMPTS, SamplingParams(max_tokens=max_tokens))
            ):
                expected[prompt, max_tokens].append(crowd.decode(token_ids))
    counts = Counter[tuple[int, bool]]()  # by engine, and whether only that one served
    for answer in crowd.answers:
        engine_index = expected[answer.prompt, answer.max_tokens].index(answer.texts)
        assert engine_index in answer.engines
        counts[engine_index, len(answer.engines) == 1] += 1
    assert (
        counts.total() >= NUM_REQUESTS and len(counts) == 4
    )  # both engines, during the roll-outs and besides
    assert versions_after == [["2"], ["3"]]
    assert version_numbers(repository / "tensorrt_llm") == [3]
    samples = [sample for sample in fetch(triton.metrics) if sample.name.startswith("nv_trt_llm")]
    assert {sample.labels["version"] for sample in samples} == {"3"}


def test_an_engine_that_is_refused_leaves_the_old_one_serving(
    triton: Triton, repository: Path, refitted: EngineDir, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(refitted.path, tmp_path / "broken"))
    with (broken / "rank0_managed_weights.safetensors").open("ab") as file:
        file.write(b"more")
    versions, files = running_versions(triton), snapshot(repository)
    with pytest.raises(
        DeploymentError, match=r"continues to serve\. Triton says: .* is not the file that was built"
    ):
        roll_out(triton, repository, engine_dir=broken)
    assert running_versions(triton) == versions and snapshot(repository) == files
    assert stream(triton, "tensorrt_llm", input_ids=[5, 6], input_lengths=2, request_output_len=3)


def test_a_model_without_an_engine_is_no_target(triton: Triton, repository: Path, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="has no gpt_model_path"):
        roll_out(triton, repository, "preprocessing", engine_dir=tmp_path)
    with pytest.raises(DeploymentError, match="no version that could be replaced"):
        roll_out(triton, tmp_path, engine_dir=tmp_path)
