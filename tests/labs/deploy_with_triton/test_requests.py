"""The small things of lesson 10, against the session's Triton, and its pictures' alternative texts."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from engineroom.triton.deployment import describe
from engineroom.triton.lint import lint
from engineroom.triton.server import Triton
from labs.deploy_with_triton import plots
from labs.deploy_with_triton import requests as lesson
from labs.deploy_with_triton.requests import Answer
from tests.engineroom.triton.conftest import CACHE, commands, steps
from tests.labs.lessons.answers_10 import CONFIG

ASK = {"input_ids": [300, 301], "input_lengths": 2, "request_output_len": 20}


def with_client(triton: Triton, act: Callable[[InferenceServerClient], Awaitable[object]]) -> object:
    async def run() -> object:
        async with InferenceServerClient(triton.grpc) as client:
            return await act(client)

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
    """Told by the engine's steps, each of which would serve all three; a busy client may see ends and begins mixed."""

    def together(model: str, *texts: str, **more: bool) -> list[str]:
        async def everybody(client: InferenceServerClient) -> list[Answer]:
            asks = [lesson.ask(client, model, text_input=text, max_tokens=16, **more) for text in texts]
            return await asyncio.gather(*asks)

        return [answer.text for answer in with_client(triton, everybody)]

    texts = [f"One two three {number}" for number in range(3)]
    before = steps(triton)
    alone = [text for one in texts for text in together("ensemble", one, stream=True)]
    between = steps(triton)
    assert together("in_order", *texts) == alone and any(alone)
    assert steps(triton) - between > 0.8 * (between - before) > 10


def test_an_error_of_another_model_is_the_program_s_answer(triton: Triton, in_order: None) -> None:
    found = with_client(triton, lambda client: lesson.ask(client, "in_order", text_input="One", max_tokens=0))
    assert "max_tokens" in found.error and (found.version, found.text) == ("", "")
    found = with_client(triton, lambda client: lesson.ask(client, "in_order", text_input="One", max_tokens=2))
    assert not found.error and found.version == "1"


def test_an_answer_has_its_tokens_its_times_and_the_engine_s_steps(triton: Triton) -> None:
    before = steps(triton)
    found = with_client(triton, lambda client: lesson.ask(client, "tensorrt_llm", streaming=True, **ASK))
    assert len(found.tokens) == 20 and found.version == "1"
    assert found.sent <= found.arrivals[0] <= found.arrivals[-1] <= found.done
    assert 20 <= steps(triton) - before <= 21
    blocks = {labels: value for (_, labels), value in lesson.gauges(triton, "nv_trt_llm_kv").items()}
    assert CACHE in [a * b for a in blocks.values() for b in blocks.values()]


def test_figures_are_labelled_by_their_process(triton: Triton) -> None:
    """Two loads of one version, or two models, with equal labels would share what the first of them deletes."""
    found = {dict(pair.split(" ", 1) for pair in labels.split(", "))["process"] for _, labels in lesson.gauges(
        triton, "nv_trt_llm_general")}  # fmt: skip
    assert found == {
        str(one.pid) for one, line in commands(triton).items() if "tensorrt_llm/1/model.py" in line
    }


def test_batch_sizes_and_versions_are_triton_s(triton: Triton) -> None:
    async def act(client: InferenceServerClient) -> tuple[Counter[int], dict[str, str]]:
        before = await lesson.batch_sizes(client, "preprocessing")
        ask = lesson.inputs(QUERY="One two", REQUEST_OUTPUT_LEN=1)
        await asyncio.gather(*(client.infer("preprocessing", ask) for _ in range(24)))
        return await lesson.batch_sizes(client, "preprocessing") - before, await lesson.versions(
            client, "ensemble"
        )

    sizes, versions = with_client(triton, act)
    assert sum(size * calls for size, calls in sizes.items()) == 24
    assert versions == {"1": "READY"}


def test_under_load_everybody_asks_before_during_and_after() -> None:
    asked, when = [], []

    async def one() -> Answer:
        asked.append(len(when))
        await asyncio.sleep(0)
        return Answer(0)

    async def act() -> None:
        when.append("began")
        while 1 not in asked:
            await asyncio.sleep(0)
        when.append("ended")

    answers, began, ended = asyncio.run(lesson.under_load(act, one, users=3, after=2))
    assert len(answers) == len(asked) and began <= ended
    assert Counter(asked)[0] >= 6 and Counter(asked)[1] > 0 and Counter(asked)[2] >= 6


def test_fill_template_names_no_variable_that_nvidia_s_file_lacks() -> None:
    made = describe(engine_dir="/engine", tokenizer_dir="/model", triton_backend="tensorrtllm")
    lines = lesson.fill_template(made, "/repository", ["ensemble", "tensorrt_llm_bls", "tensorrt_llm"])
    assert lines[0].endswith("    triton_max_batch_size:64,logits_datatype:TYPE_FP32")
    assert "cancellation_check_period_ms" not in lines[1] and "bls_instance_count:1" in lines[1]
    assert "engine_dir:/engine," in lines[2] and "triton_backend:tensorrtllm," in lines[2]


def test_pictures_say_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    ok = [Answer(n, n + 1.5, [n + 0.5, n + 1.5], version="12"[n > 1]) for n in range(4)]
    plots.streams({"one": ok[:2], "two": ok[2:]})
    plots.batches({"0 µs": Counter({1: 3, 2: 1}), "20 µs": Counter({5: 1})}, {"0 µs": 0.001, "20 µs": 0.021})
    plots.rollout([*ok, Answer(2, 2.1, error="gone")], 1, 2)
    said = capsys.readouterr().out
    assert "two: the last one begins after 0.50 s, all have ended after 1.50 s" in said
    assert "0 µs: 4 calls, 1.2 requests in each; alone 1.0 ms" in said
    assert "Version 1 answered 2. Version 2 answered 2. 1 failed." in said
    assert [row for row, _ in plots.rows(ok)] == [0, 1, 0, 1]
