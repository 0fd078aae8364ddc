"""Lesson 10's requests and counters against a real Triton, and its figures' alternative texts."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from engineroom.triton.deployment import describe
from engineroom.triton.lint import lint
from engineroom.triton.server import Triton
from labs.deploy_with_triton import plots
from labs.deploy_with_triton import requests as lesson
from labs.deploy_with_triton.requests import TritonResponse
from tests.engineroom.triton.conftest import KV_CACHE_TOKENS, commands, steps
from tests.labs.lessons.answers_10 import CONFIG

Result = TypeVar("Result")
REQUEST = {"input_ids": [300, 301], "input_lengths": 2, "request_output_len": 20}


def with_client(triton: Triton, action: Callable[[InferenceServerClient], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with InferenceServerClient(triton.grpc) as client:
            return await action(client)

    return asyncio.run(run())


@pytest.fixture
def in_order(triton: Triton, repository: Path) -> Iterator[None]:
    folder = repository / "in_order"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    shutil.copy(Path(lesson.__file__).with_name("in_order.py"), folder / "1" / "model.py")
    assert lint(repository) == []
    with_client(triton, lambda client: client.load_model("in_order"))
    yield
    with_client(triton, lambda client: client.unload_model("in_order"))
    shutil.rmtree(folder)


def test_the_shortest_program_serves_one_after_another(triton: Triton, in_order: None) -> None:
    """The number of steps proves it, since one step can serve all three requests. A time would prove nothing."""

    def infer_together(model: str, *prompts: str, **flags: bool) -> list[str]:
        async def infer_all(client: InferenceServerClient) -> list[TritonResponse]:
            requests = [
                lesson.infer(client, model, text_input=prompt, max_tokens=16, **flags) for prompt in prompts
            ]
            return await asyncio.gather(*requests)

        return [response.text for response in with_client(triton, infer_all)]

    prompts = [f"One two three {index}" for index in range(3)]
    before = steps(triton)
    expected = [text for prompt in prompts for text in infer_together("ensemble", prompt, stream=True)]
    between = steps(triton)
    assert infer_together("in_order", *prompts) == expected and any(expected)
    assert steps(triton) - between > 0.8 * (between - before) > 10


def test_an_error_of_another_model_is_the_program_s_answer(triton: Triton, in_order: None) -> None:
    def infer(max_tokens: int) -> TritonResponse:
        return with_client(
            triton, lambda client: lesson.infer(client, "in_order", text_input="One", max_tokens=max_tokens)
        )

    response = infer(max_tokens=0)
    assert "max_tokens" in response.error and (response.version, response.text) == ("", "")
    response = infer(max_tokens=2)
    assert not response.error and response.version == "1"


def test_a_response_has_its_tokens_its_times_and_the_engine_s_steps(triton: Triton) -> None:
    before = steps(triton)
    response = with_client(
        triton, lambda client: lesson.infer(client, "tensorrt_llm", streaming=True, **REQUEST)
    )
    assert len(response.token_ids) == 20 and response.version == "1"
    assert response.start_time <= response.arrival_times[0]
    assert response.arrival_times[0] <= response.arrival_times[-1] <= response.end_time
    assert 20 <= steps(triton) - before <= 21
    blocks = list(lesson.read_metrics(triton, "nv_trt_llm_kv").values())
    assert KV_CACHE_TOKENS in [first * second for first in blocks for second in blocks]


def test_figures_are_labelled_by_their_process(triton: Triton) -> None:
    """With equal labels, two loads of a version would share gauges, and the first one to be unloaded deletes them."""
    metrics = lesson.read_metrics(triton, "nv_trt_llm_general")
    labels = [dict(label.split(" ", 1) for label in text.split(", ")) for _, text in metrics]
    processes = [
        process for process, command in commands(triton).items() if "tensorrt_llm/1/model.py" in command
    ]
    assert {label["process"] for label in labels} == {str(process.pid) for process in processes}


def test_batch_sizes_and_versions_are_triton_s(triton: Triton) -> None:
    async def send_requests(client: InferenceServerClient) -> tuple[Counter[int], dict[str, str]]:
        before = await lesson.batch_sizes(client, "preprocessing")
        inputs = lesson.infer_inputs(QUERY="One two", REQUEST_OUTPUT_LEN=1)
        await asyncio.gather(*(client.infer("preprocessing", inputs) for _ in range(24)))
        sizes = await lesson.new_batch_sizes(client, "preprocessing", before, num_requests=24)
        return sizes, await lesson.model_versions(client, "ensemble")

    sizes, versions = with_client(triton, send_requests)
    assert sum(size * calls for size, calls in sizes.items()) == 24
    assert versions == {"1": "READY"}


def test_under_load_every_user_sends_requests_before_during_and_after() -> None:
    phase = "before"
    requests: list[str] = []  # the phase in which each was sent

    async def send_request() -> TritonResponse:
        requests.append(phase)
        await asyncio.sleep(0)
        return TritonResponse(0)

    async def action() -> None:
        nonlocal phase
        phase = "during"
        while "during" not in requests:
            await asyncio.sleep(0)
        phase = "after"

    running = lesson.run_under_load(action, send_request, num_users=3, num_requests=2)
    responses, start_time, end_time = asyncio.run(running)
    counts = Counter(requests)
    assert len(responses) == len(requests) and start_time <= end_time
    assert counts["before"] >= 6 and counts["during"] > 0 and counts["after"] >= 6


def test_fill_template_names_no_variable_that_nvidia_s_file_lacks() -> None:
    deployment = describe(engine_dir="/engine", tokenizer_dir="/model", triton_backend="tensorrtllm")
    models = ["ensemble", "tensorrt_llm_bls", "tensorrt_llm"]
    ensemble, bls, engine = lesson.fill_template_commands(deployment, "/repository", models)
    assert ensemble.endswith("    triton_max_batch_size:64,logits_datatype:TYPE_FP32")
    assert "cancellation_check_period_ms" not in bls and "bls_instance_count:1" in bls
    assert "engine_dir:/engine," in engine and "triton_backend:tensorrtllm," in engine


def test_pictures_say_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    responses = [
        TritonResponse(start, start + 1.5, [start + 0.5, start + 1.5], version="1" if start < 2 else "2")
        for start in range(4)
    ]
    plots.streams(
        {"one": responses[:2], "two": responses[2:], "three": [TritonResponse(2, 2.1, error="gone")]}
    )
    plots.batches({"0 µs": Counter({1: 3, 2: 1}), "20 µs": Counter({5: 1})}, {"0 µs": 0.001, "20 µs": 0.021})
    plots.rollout([*responses, TritonResponse(2, 2.1, error="gone")], 1, 2)
    alt = capsys.readouterr().out
    assert "two: the last stream begins after 0.50 s, all have ended after 1.50 s" in alt
    assert "three: all have ended after 0.10 s. 1 of them ended with an error, a red cross." in alt
    assert "0 µs: 4 calls, 1.2 requests in each; alone 1.0 ms" in alt
    assert "Version 1 answered 2. Version 2 answered 2. 1 failed." in alt
    assert [row for row, _ in plots.assign_rows(responses)] == [0, 1, 0, 1]
