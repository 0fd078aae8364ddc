"""The same repository with decoupled_mode:false: plain inference for every model, and no stream."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.openai.text import Vocabulary
from engineroom.triton.deployment import describe
from engineroom.triton.lint import lint
from engineroom.triton.render import render
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import SETTINGS, Start, inputs, steps

PROMPTS = [f"One two three {number}" for number in range(12)]


@pytest.fixture(scope="module")
def triton(engine: EngineDir, start: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    made = describe(engine_dir=engine.path, decoupled_mode=False, **SETTINGS)
    repository = render(made, tmp_path_factory.mktemp("one") / "repository")
    assert lint(repository) == []
    with start(repository) as running:
        yield running


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_requests_of_several_clients_are_in_flight_together(
    triton: Triton, vocabulary: Vocabulary, alone: Executor, model: str
) -> None:
    prompts = [vocabulary.encode(prompt) for prompt in PROMPTS]
    right = alone.generate(prompts, SamplingParams(max_tokens=200))
    before, connected = steps(triton), threading.Barrier(len(PROMPTS))

    def ask(prompt: str) -> str:
        with InferenceServerClient(triton.grpc) as client:
            asked = inputs(text_input=prompt, max_tokens=200, end_id=-1, exclude_input_in_output=True)
            connected.wait(60)
            return client.infer(model, asked).as_numpy("text_output")[0].decode()

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        found = list(threads.map(ask, PROMPTS))
    assert found == [vocabulary.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in right]
    assert steps(triton) - before < sum(map(len, right)) / 2


def test_a_stream_is_refused(triton: Triton) -> None:
    ask = inputs(text_input=PROMPTS[0], max_tokens=4, stream=True)
    with InferenceServerClient(triton.grpc) as client:
        for model in ("ensemble", "tensorrt_llm_bls"):
            with pytest.raises(InferenceServerException, match="decoupled_mode:true"):
                client.infer(model, ask)


def test_the_engine_by_itself(triton: Triton) -> None:
    with InferenceServerClient(triton.grpc) as client:
        asked = inputs(input_ids=[300, 301], input_lengths=2, request_output_len=4)
        found = client.infer("tensorrt_llm", asked).as_numpy("output_ids")
    assert found.shape == (1, 1, 6) and np.array_equal(found[0, 0, :2], [300, 301])
