"""Text of an answer, piece by piece: whole characters only, and no stop string in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.engine.runtime.executor import Output
from engineroom.engine.runtime.scheduler import RequestError
from engineroom.openai.text import Piece, StopStrings, Vocabulary, join, pieces

QUICK = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SPOKEN = "naïve façade, Größe, 日本語のテキスト, 🙂👩‍👩‍👧, ﷽"


def said(vocabulary: Vocabulary, ids: Sequence[int], stops: Sequence[str] = ()) -> list[Piece]:
    async def outputs() -> AsyncGenerator[Output]:
        for number, token in enumerate(ids, 1):
            yield Output(token, 0.0, "length" if number == len(ids) else None)

    async def everything() -> list[Piece]:
        return [piece async for piece in pieces(outputs(), vocabulary, stops, True)]

    return asyncio.run(everything())


def test_no_half_characters(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode(SPOKEN)
    assert len(ids) > len(SPOKEN)  # several tokens for a character
    parts = said(vocabulary, ids)
    assert len(parts) == len(ids) and "".join(part.text for part in parts) == SPOKEN
    for cut in range(1, len(ids)):
        assert SPOKEN.startswith("".join(part.text for part in said(vocabulary, ids[:cut])))


@QUICK
@given(st.lists(st.integers(0, 4095) | st.integers(0, 261), min_size=1, max_size=30))
def test_any_tokens_give_the_text_of_the_tokenizer(vocabulary: Vocabulary, ids: list[int]) -> None:
    whole = join(said(vocabulary, ids))
    want = vocabulary.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert whole.text == want.rstrip("\ufffd")
    assert [output.token for output in whole.outputs] == ids and len(whole.logprobs) == len(ids)


def first_end(text: str, stops: Sequence[str]) -> str | None:
    """What stands before the stop string that is complete first, letter by letter."""
    for end in range(1, len(text) + 1):
        if found := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, found))]
    return None


@QUICK
@given(st.data())
def test_stop_strings_across_any_borders(data: st.DataObject) -> None:
    letters = st.text("ab", min_size=1, max_size=4)
    parts, stops = data.draw(st.lists(letters, max_size=8)), data.draw(st.lists(letters, max_size=3))
    cut, sent, stopped = StopStrings(stops), "", False
    for number, part in enumerate(parts):
        more, stopped = cut.push(part)
        sent += more
        whole = "".join(parts[: number + 1])
        assert not any(stop in sent for stop in stops)
        if stopped:
            break
        held = whole[len(sent) :]  # only what may be the beginning of a stop string, and the most of it
        assert held == cut.held and (not held or any(stop.startswith(held) for stop in stops))
    want = first_end("".join(parts), stops)
    assert (sent if stopped else None) == want
    assert stopped or sent + cut.held == "".join(parts)


def test_a_stop_string_ends_the_answer_and_the_rest_is_sent_otherwise(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("one two three")
    parts = said(vocabulary, ids, ["o th"])
    assert join(parts).text == "one tw" and parts[-1].finish_reason == "stop"
    parts = said(vocabulary, ids, ["three four"])
    assert join(parts).text == "one two three" and parts[-1].finish_reason == "length"


def test_prompts_that_cannot_be(vocabulary: Vocabulary) -> None:
    with pytest.raises(RequestError, match="token 4096; the vocabulary has 4096"):
        vocabulary.encode([1, 4096])
    assert vocabulary.end_ids == [1] and vocabulary.defaults == {"temperature": 0.0}
