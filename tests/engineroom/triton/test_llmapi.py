"""The second template: text in and out, with the names of NVIDIA's llmapi model, decoupled and not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.sampling import SamplingParams
from engineroom.openai.text import Vocabulary
from engineroom.triton.backend.perf_metrics import LLMAPI_PERF_METRICS
from engineroom.triton.deployment import DeploymentError, describe
from engineroom.triton.lint import lint
from engineroom.triton.render import render
from engineroom.triton.server import Triton
from tests.engineroom.triton.conftest import StartTriton, infer_inputs

PROMPT = "One two three four five six seven"
MODEL = "v2/models/tensorrt_llm"


@pytest.fixture(scope="module", params=[True, False], ids=["decoupled", "one answer"])
def triton(
    request: pytest.FixtureRequest,
    engine: EngineDir,
    start_triton: StartTriton,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Triton]:
    deployment = describe(engine_dir=engine.path, template="llmapi", decoupled_mode=request.param)
    repository = render(deployment, tmp_path_factory.mktemp("llmapi") / "repository")
    assert lint(repository) == []
    with start_triton(repository) as triton:
        yield triton


def test_generate(triton: Triton, vocabulary: Vocabulary, executor: Executor) -> None:
    """The request of the backend's README, with and without a stop string."""
    token_ids = executor.generate([vocabulary.encode(PROMPT)], SamplingParams(max_tokens=20))[0]
    body = {"text_input": PROMPT, "sampling_param_max_tokens": 20, "return_finish_reason": True}
    url = f"{triton.url}/{MODEL}/generate"
    whole = httpx.post(url, json=body, trust_env=False).json()
    assert whole["text_output"] == vocabulary.tokenizer.decode(token_ids, skip_special_tokens=True)
    assert whole["finish_reason"] == "length"
    stopped = httpx.post(url, json=body | {"sampling_param_stop": "nal"}, trust_env=False).json()
    assert stopped["text_output"] == whole["text_output"].split("nal")[0]
    assert stopped["finish_reason"] == "stop"


def test_perf_metrics(triton: Triton) -> None:
    body = {"text_input": PROMPT, "sampling_param_max_tokens": 9, "sampling_param_return_perf_metrics": True}
    response = httpx.post(f"{triton.url}/{MODEL}/generate", json=body, trust_env=False).json()
    assert {*LLMAPI_PERF_METRICS} <= response.keys()
    times = [
        response[f"{name}_time_ns"] for name in ("arrival", "first_scheduled", "first_token", "last_token")
    ]
    assert times[0] > 0 and times == sorted(times)
    assert response["kv_cache_missed_block"] == response["kv_cache_alloc_total_blocks"] == 1
    assert response["kv_cache_reused_block"] == response["kv_cache_hit_rate"] == 0


def test_streaming_is_for_a_decoupled_model_only(triton: Triton) -> None:
    with InferenceServerClient(triton.grpc) as client:
        decoupled = client.get_model_config("tensorrt_llm").config.model_transaction_policy.decoupled
    body = {"text_input": PROMPT, "sampling_param_max_tokens": 200, "streaming": True}
    response = httpx.post(f"{triton.url}/{MODEL}/generate_stream", json=body, trust_env=False, timeout=60)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    if decoupled:
        whole = httpx.post(
            f"{triton.url}/{MODEL}/generate", json=body | {"streaming": False}, trust_env=False, timeout=60
        )
        assert len(events) > 1  # tokens that arrive faster than they can be sent share a response
        texts = [event["text_output"] for event in events]  # each has the whole text so far, as NVIDIA's
        assert texts == sorted(texts, key=len) and all(texts[-1].startswith(text) for text in texts)
        assert texts[0] != texts[-1] == whole.json()["text_output"]
    else:
        assert "decoupled_mode:true" in events[0]["error"]
        arrays = {"text_input": np.array([PROMPT.encode()], object)}
        with InferenceServerClient(triton.grpc) as client:  # plain ModelInfer is for models with one response
            result = client.infer("tensorrt_llm", infer_inputs(**arrays))
        assert result.as_numpy("text_output").shape == (1,)


@pytest.mark.parametrize(
    "change", [{"top_p": 2.0}, {"max_tokens": 0}, {"presence_penalty": 3.0}, {"best_of": 3}]
)
def test_a_value_that_this_engine_does_not_take_is_named(triton: Triton, change: dict[str, float]) -> None:
    body = {"text_input": PROMPT} | {f"sampling_param_{key}": value for key, value in change.items()}
    response = httpx.post(f"{triton.url}/{MODEL}/generate", json=body, trust_env=False)
    assert response.status_code == 400
    assert f"sampling_param_{next(iter(change))}" in response.json()["error"]


def test_invalid_utf_8_is_named(triton: Triton) -> None:
    with InferenceServerClient(triton.grpc) as client, pytest.raises(InferenceServerException) as error:
        client.infer("tensorrt_llm", infer_inputs(text_input=np.array([b"\xff"], object)))
    assert "not UTF-8" in str(error.value) or "decoupled" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("decoupled: true", "decoupled: false", "decoupled is False in model.yaml and True in config.pbtxt"),
        ("model: /", "model: /none/", "/none/"),
        (
            "triton_config:",
            "triton:",
            "1/model.yaml:9: triton_config is missing. Rename triton to triton_config",
        ),
        (
            "cancellation_check_period_ms: 100",
            "cancellation_check_period_ms: soon",
            "is 'soon'; expected a whole number",
        ),
        ("enable_block_reuse", "enable_block_reuses", "there is no such setting"),
        ("backend: aot", "backend: [", "model.yaml cannot be read"),
    ],
)
def test_mistakes_in_model_yaml(engine: EngineDir, tmp_path: Path, old: str, new: str, expected: str) -> None:
    repository = render(describe(engine_dir=engine.path, template="llmapi"), tmp_path / "repository")
    path = repository / "tensorrt_llm" / "1" / "model.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert expected in "\n".join(lint(repository))


def test_nvidia_s_container_has_its_own() -> None:
    with pytest.raises(DeploymentError, match="all_models/llmapi"):
        describe(engine_dir=Path("/e"), template="llmapi", triton_backend="tensorrtllm")
