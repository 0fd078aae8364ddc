"""Outputs with grammars, penalties, biases and log-probabilities: the same in any batch, at any overlap."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from engineroom.checkpoint import Checkpoint, ShardedModel
from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor, KvCacheConfig
from engineroom.engine.runtime.grammar import Grammar, GrammarCompiler, GrammarError, GrammarState
from engineroom.engine.runtime.request import Request, RequestError
from engineroom.engine.runtime.sampling import SamplingError, SamplingParams
from engineroom.engine.runtime.scheduler import CapacitySchedulerPolicy, ScheduledBatch
from engineroom.openai.text import Vocabulary
from tests.engineroom.engine.conftest import COURSE

PROMPTS = [[7 * n + i for i in range(length)] for n, length in enumerate((3, 20, 47, 90, 16, 33))]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "maximum": 999}, "unit": {"enum": ["ms", "s"]}},
    "required": ["answer", "unit"],
    "additionalProperties": False,
}
END = 1


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(COURSE)


@pytest.fixture(scope="module")
def compiler(vocabulary: Vocabulary) -> GrammarCompiler:
    return GrammarCompiler(vocabulary.tokenizer, vocabulary.end_ids)


@pytest.fixture(scope="module")
def grammar(compiler: GrammarCompiler) -> Grammar:
    return compiler.json_schema(SCHEMA)


def all_params(grammar: Grammar) -> list[SamplingParams]:
    """Requests of every kind; each one of them changes its output."""
    base = SamplingParams(max_tokens=24, seed=3)
    sampled = replace(base, temperature=1.5)
    return [
        base,
        replace(base, repetition_penalty=3.0),
        replace(base, presence_penalty=2, frequency_penalty=2, logprobs=2),
        replace(base, end_id=END, min_tokens=20, logit_bias=((END, 50.0),)),
        replace(sampled, grammar=grammar, end_id=END, max_tokens=40),
        replace(sampled, temperature=3.0, min_p=0.3, prompt_logprobs=3),
    ]


def run(executor: Executor, requests: list[Request]) -> list[list[int]]:
    for request in requests:
        executor.scheduler.add(request)
    while executor.scheduler.has_requests:
        executor.step()
    assert executor.block_manager.num_free_blocks == executor.block_manager.num_blocks
    return [request.output_token_ids for request in requests]


@pytest.fixture(scope="module")
def alone(engine: EngineDir, grammar: Grammar) -> list[Request]:
    """A finished request for each prompt, which ran alone without overlap."""
    executor = Executor(engine, KvCacheConfig(max_tokens=2048, enable_block_reuse=False), overlap=0)
    requests = [
        Request(list(prompt), params) for prompt, params in zip(PROMPTS, all_params(grammar), strict=True)
    ]
    for request in requests:
        run(executor, [request])
    return requests


@pytest.mark.parametrize(
    ("policy", "max_tokens"),
    [("guaranteed_no_evict", 2048), ("max_utilization", 320), ("max_utilization", 160)],
)
@pytest.mark.parametrize("overlap", [0, 1, 2])
def test_an_output_depends_neither_on_its_neighbours_nor_on_the_overlap(
    engine: EngineDir,
    alone: list[Request],
    grammar: Grammar,
    overlap: int,
    policy: CapacitySchedulerPolicy,
    max_tokens: int,
) -> None:
    """In 320 tokens of cache requests are preempted, and recomputed from their own output."""
    executor = Executor(engine, KvCacheConfig(max_tokens=max_tokens), policy, overlap)
    for _ in range(2):  # the second time, prefixes are in the cache
        requests = [
            Request(list(prompt), params) for prompt, params in zip(PROMPTS, all_params(grammar), strict=True)
        ]
        assert run(executor, requests) == [request.output_token_ids for request in alone]
        for request, expected in zip(requests, alone, strict=True):
            for logprob, expected_logprob in zip(
                request.prompt_logprobs, expected.prompt_logprobs, strict=True
            ):
                assert logprob.logprob == pytest.approx(expected_logprob.logprob, abs=1e-3)


def test_each_rule_changes_the_output(
    engine: EngineDir, alone: list[Request], vocabulary: Vocabulary
) -> None:
    executor = Executor(engine, KvCacheConfig(max_tokens=2048))
    for request in alone[1:]:
        names = ("max_tokens", "temperature", "seed", "end_id")
        params = SamplingParams(**{name: getattr(request.params, name) for name in names})
        plain = executor.generate([request.token_ids[: request.num_prompt_tokens]], params)
        assert request.output_token_ids != plain[0]
    assert len(alone[3].output_token_ids) == 21 and alone[3].output_token_ids[-1] == END
    answer = json.loads(vocabulary.tokenizer.decode(alone[4].output_token_ids, skip_special_tokens=True))
    assert answer.keys() == {"answer", "unit"} and answer["unit"] in ("ms", "s") and answer["answer"] < 1000


def test_prompt_logprobs_are_those_of_the_reference(
    alone: list[Request], checkpoint: Checkpoint, engine: EngineDir
) -> None:
    """The prompt is longer than a step may have rows of logits, so it takes several steps."""
    request = alone[5]
    prompt = request.token_ids[: request.num_prompt_tokens]
    assert len(prompt) > 2 * engine.limits.max_batch_size
    expected = ShardedModel(checkpoint).logits(prompt).log_softmax(-1)  # [num_tokens, vocab_size]
    assert len(request.prompt_logprobs) == len(prompt) - 1
    for position, logprob in enumerate(request.prompt_logprobs):
        row = expected[position]
        assert logprob.logprob == pytest.approx(float(row[prompt[position + 1]]), abs=1e-3)
        values, token_ids = row.topk(3)
        assert [token_id for token_id, _ in logprob.top] == token_ids.tolist()
        assert [value for _, value in logprob.top] == pytest.approx(values.tolist(), abs=1e-3)


def test_a_step_has_no_more_logits_than_the_graph_was_built_for(engine: EngineDir) -> None:
    executor = Executor(engine, KvCacheConfig(max_tokens=2048))
    for prompt in PROMPTS:
        count = 0 if len(prompt) > 20 else None
        executor.scheduler.add(Request(list(prompt), SamplingParams(max_tokens=2, prompt_logprobs=count)))
    numbers_of_logits: list[int] = []
    schedule = executor.scheduler.schedule

    def schedule_and_count() -> ScheduledBatch:
        batch = schedule()
        numbers_of_logits.append(batch.num_context_logits)
        return batch

    executor.scheduler.schedule = schedule_and_count
    while executor.scheduler.has_requests:
        executor.step()
    assert max(numbers_of_logits) == engine.limits.max_batch_size


def test_the_first_output_has_the_prompt_s_logprobs(engine: EngineDir) -> None:
    executor = Executor(engine, KvCacheConfig(max_tokens=2048), overlap=1)
    request = Request([5, 6, 7], SamplingParams(max_tokens=3, prompt_logprobs=0))
    executor.scheduler.add(request)
    outputs = []
    while executor.scheduler.has_requests:
        outputs += [output for _, output in executor.step()]
    assert [len(output.prompt_logprobs) for output in outputs] == [2, 0, 0]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "foo"}, "Invalid type: foo"),
        (False, "Unsatisfiable"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(
    compiler: GrammarCompiler, schema: Any, message: str
) -> None:
    with pytest.raises(GrammarError, match=message) as error:
        compiler.json_schema(schema)
    assert "\n" not in str(error.value)


def test_a_token_outside_the_grammar_ends_its_request_alone(
    engine: EngineDir, grammar: Grammar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each state gets a token that it does not allow; an output could meet a limit of the library in the same way."""
    advance = GrammarState.advance
    monkeypatch.setattr(GrammarState, "advance", lambda self, token_id: advance(self, 300))
    executor = Executor(engine, KvCacheConfig(max_tokens=2048))
    params = SamplingParams(max_tokens=20, grammar=grammar)
    failing, other = Request([5, 6], params), Request([7, 8], SamplingParams(max_tokens=5))
    run(executor, [failing, other])
    assert failing.finished and len(other.output_token_ids) == 5
    with pytest.raises(RequestError, match="the grammar cannot be followed: "):
        executor.generate([[5, 6]], params)


def test_min_tokens_and_a_grammar_contradict_each_other(grammar: Grammar) -> None:
    with pytest.raises(SamplingError, match="min_tokens is 3, but the grammar"):
        SamplingParams(min_tokens=3, grammar=grammar)
