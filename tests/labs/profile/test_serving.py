"""The server of lesson 11 on the real engine: each planted bottleneck is seen, mended, and changes no token."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from engineroom.engine.directory import EngineDir
from engineroom.engine.runtime.executor import Executor
from engineroom.engine.runtime.sampling import SamplingParams
from labs.kit.check import Mistake
from labs.profile.checks import bottleneck
from labs.profile.planted import (
    SLOW,
    UNDECODABLE,
    HostFunctions,
    cache_layout,
    choose_token,
    detokenize,
    drawn_span,
    planted,
    planted_for,
    with_function,
)
from labs.profile.serving import Profile, Server, profile_serving
from labs.profile.spans import parents, self_times

PROMPTS = [[7 + 3 * n + i for i in range(9 + n)] for n in range(4)]
ANSWER = 40
HEALTHY = HostFunctions()


@pytest.fixture(scope="module")
def server(engine: EngineDir) -> Server:
    return Server(engine, kv_tokens=512)


@pytest.fixture(scope="module")
def healthy(server: Server) -> Profile:
    return profile_serving(server, PROMPTS, ANSWER, HEALTHY)


@pytest.fixture(scope="module", params=SLOW)
def slow(request: pytest.FixtureRequest, server: Server) -> tuple[str, Profile]:
    return request.param, profile_serving(server, PROMPTS, ANSWER, planted(request.param))


def test_the_server_s_answers_are_the_engine_s(engine: EngineDir, healthy: Profile) -> None:
    assert healthy.answers == Executor(engine).generate(PROMPTS, SamplingParams(max_tokens=ANSWER))


def test_the_texts_are_those_of_the_whole_answers(server: Server, healthy: Profile) -> None:
    for token_ids, text in zip(healthy.answers, healthy.texts, strict=True):
        assert text == server._decode(token_ids).rstrip(UNDECODABLE)


def test_a_bottleneck_changes_no_token_and_no_text(healthy: Profile, slow: tuple[str, Profile]) -> None:
    _, profile = slow
    assert (profile.answers, profile.texts) == (healthy.answers, healthy.texts)


def test_a_bottleneck_touches_too_much_and_nothing_else_does(
    healthy: Profile, slow: tuple[str, Profile]
) -> None:
    span, profile = slow
    assert [name for name in SLOW if profile.touches_too_much(name)] == [span]
    assert not any(map(healthy.touches_too_much, SLOW))
    others = {name: count for name, count in profile.counts.items() if name != span}
    assert others == {name: healthy.counts[name] for name in others}


def test_the_trace_has_every_call_within_its_step(engine: EngineDir, healthy: Profile) -> None:
    tokens = len(PROMPTS) * ANSWER
    caches = 2 * engine.model.num_hidden_layers
    assert healthy.calls["choose_token"] == healthy.calls["detokenize"] == tokens
    assert healthy.calls["cache_layout"] == caches * healthy.calls["forward"]
    around = Counter(
        (span.name, healthy.spans[parent].name)
        for span, parent in zip(healthy.spans, parents(healthy.spans), strict=True)
        if parent is not None
    )
    assert around["forward", "generation"] == healthy.calls["generation"]
    assert around["generation", "step"] + around["context", "step"] == healthy.calls["forward"]


def test_the_check_passes_with_the_evidence_of_a_real_trace(
    healthy: Profile, slow: tuple[str, Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the shares of a quiet machine, as this one may be busy; tokens, texts, calls and counts are the run's."""
    span, before = slow
    monkeypatch.setattr(Profile, "share", lambda profile, name: 0.6 if profile is before else 0.02)
    evidence = {"span": span, "calls": before.calls[span], "share": 0.6}
    bottleneck(evidence, before, healthy)
    with pytest.raises(Mistake, match="still does too much"):
        bottleneck(evidence, before, before)


def test_a_function_that_fails_leaves_no_request(server: Server, healthy: Profile) -> None:
    def fail(*_: object) -> int:
        raise ValueError("no token")

    with pytest.raises(ValueError, match="no token"):
        profile_serving(server, PROMPTS, ANSWER, with_function(HEALTHY, "choose_token", fail))
    assert profile_serving(server, PROMPTS, 3, HEALTHY).answers == [answer[:3] for answer in healthy.answers]


def test_shares_are_of_all_self_times(healthy: Profile) -> None:
    assert sum(healthy.share(name) for name in healthy.calls) == pytest.approx(1)
    assert healthy.share("other") == 0
    assert self_times(healthy.spans).keys() == healthy.calls.keys()


@pytest.mark.parametrize("slow_or_not", [choose_token, SLOW["choose_token"]])
def test_the_first_of_equal_logits_is_chosen(slow_or_not: object) -> None:
    assert slow_or_not(torch.tensor([1.0, 5.0, 5.0, -1.0])) == 1


def test_the_cache_keeps_its_values_and_its_shape() -> None:
    cache = torch.arange(3 * 4 * 2 * 5).reshape(3, 4, 2, 5)
    copied = SLOW["cache_layout"](cache)
    assert isinstance(copied, torch.Tensor) and copied.is_contiguous() and torch.equal(copied, cache)
    assert copied.data_ptr() != cache.data_ptr() == cache_layout(cache).data_ptr()


@pytest.mark.parametrize("function", [detokenize, SLOW["detokenize"]])
def test_a_character_of_several_tokens_is_sent_once_and_whole(function: object) -> None:
    def decode(token_ids: list[int]) -> str:
        return bytes(token_ids).decode(errors="replace")

    text = "naïve 漢字 🙂 end"
    token_ids, sent, num_sent = list(text.encode()), "", 0
    for end in range(1, len(token_ids) + 1):
        delta = function(token_ids[:end], num_sent, decode)
        sent, num_sent = sent + delta, end if delta else num_sent
    assert sent == text


def test_a_learner_s_bottleneck_stays_the_same_and_each_one_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = set()
    for learner in range(40):
        monkeypatch.setenv("ENGINEROOM_HOME", str(tmp_path / str(learner)))
        span = drawn_span("11.bottleneck")
        assert span == drawn_span("11.bottleneck")
        assert planted_for("11.bottleneck") == planted(span)
        drawn.add(span)
    assert drawn == set(SLOW)


@pytest.mark.parametrize("function", [detokenize, SLOW["detokenize"]])
def test_a_space_before_a_word_is_sent(function: Any) -> None:
    """As with tokenizers that drop the space at the beginning of what they decode."""
    words = [" The", " roof", "line", " is", " a", " picture", "."]
    sent = ""
    for end in range(1, len(words) + 1):
        sent += function(range(end), end - 1, lambda ids: "".join(words[i] for i in ids).lstrip())
    assert sent == "The roofline is a picture."
