"""The same repository with decoupled_mode:false: plain inference for every model, and no streams."""

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
from tests.engineroom.triton.conftest import SETTINGS, StartTriton, infer_inputs, steps

PROMPTS = [f"One two three {index}" for index in range(12)]


@pytest.fixture(scope="module")
def triton(
    engine: EngineDir, start_triton: StartTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    deployment = describe(engine_dir=engine.path, decoupled_mode=False, **SETTINGS)
    repository = render(deployment, tmp_path_factory.mktemp("one") / "repository")
    assert lint(repository) == []
    with start_triton(repository) as triton:
        yield triton


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_requests_of_several_clients_are_in_flight_together(
    triton: Triton, vocabulary: Vocabulary, executor: Executor, model: str
) -> None:
    prompts = [vocabulary.encode(prompt) for prompt in PROMPTS]
    expected = executor.generate(prompts, SamplingParams(max_tokens=200))
    steps_before, connected = steps(triton), threading.Barrier(len(PROMPTS))

    def infer(prompt: str) -> str:
        with InferenceServerClient(triton.grpc) as client:
            inputs = infer_inputs(text_input=prompt, max_tokens=200, end_id=-1, exclude_input_in_output=True)
            connected.wait(60)
            return client.infer(model, inputs).as_numpy("text_output")[0].decode()

    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        texts = list(threads.map(infer, PROMPTS))
    tokenizer = vocabulary.tokenizer
    assert texts == [tokenizer.decode(token_ids, skip_special_tokens=True) for token_ids in expected]
    assert steps(triton) - steps_before < sum(map(len, expected)) / 2


def test_a_stream_is_refused(triton: Triton) -> None:
    inputs = infer_inputs(text_input=PROMPTS[0], max_tokens=4, stream=True)
    with InferenceServerClient(triton.grpc) as client:
        for model in ("ensemble", "tensorrt_llm_bls"):
            with pytest.raises(InferenceServerException, match="decoupled_mode:true"):
                client.infer(model, inputs)


def test_the_engine_by_itself(triton: Triton) -> None:
    with InferenceServerClient(triton.grpc) as client:
        inputs = infer_inputs(input_ids=[300, 301], input_lengths=2, request_output_len=4)
        output_ids = client.infer("tensorrt_llm", inputs).as_numpy("output_ids")
    assert output_ids.shape == (1, 1, 6) and np.array_equal(output_ids[0, 0, :2], [300, 301])
