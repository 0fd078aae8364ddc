"""Text of an output, delta by delta: whole characters only, and no stop string in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.engine.runtime.request import RequestError, TokenOutput
from engineroom.openai.text import StopStrings, TextDelta, Vocabulary, detokenize, join_deltas

QUICK = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
TEXT = "naïve façade, Größe, 日本語のテキスト, 🙂👩‍👩‍👧, ﷽"


def deltas_of(
    vocabulary: Vocabulary, token_ids: Sequence[int], stop_strings: Sequence[str] = ()
) -> list[TextDelta]:
    async def outputs() -> AsyncGenerator[TokenOutput]:
        for token_id in token_ids[:-1]:
            yield TokenOutput(token_id, 0.0)
        yield TokenOutput(token_ids[-1], 0.0, "length")

    async def collect() -> list[TextDelta]:
        return [delta async for delta in detokenize(outputs(), vocabulary, stop_strings, True)]

    return asyncio.run(collect())


def test_no_half_characters(vocabulary: Vocabulary) -> None:
    token_ids = vocabulary.encode(TEXT)
    assert len(token_ids) > len(TEXT)  # several tokens for a character
    deltas = deltas_of(vocabulary, token_ids)
    assert len(deltas) == len(token_ids) and join_deltas(deltas).text == TEXT
    for length in range(
        1, len(token_ids)
    ):  # only the last delta may have half a character: no more tokens follow
        *earlier, last = deltas_of(vocabulary, token_ids[:length])
        texts = [delta.text for delta in earlier]
        assert TEXT.startswith("".join([*texts, last.text.removesuffix("\ufffd")]))


@QUICK
@given(st.lists(st.integers(0, 4095) | st.integers(0, 261), min_size=1, max_size=30))
def test_any_tokens_give_the_text_of_the_tokenizer(vocabulary: Vocabulary, token_ids: list[int]) -> None:
    whole = join_deltas(deltas_of(vocabulary, token_ids))
    expected = vocabulary.tokenizer.decode(
        token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert whole.text == expected
    assert [output.token_id for output in whole.outputs] == token_ids
    assert len(whole.logprobs) == len(token_ids)


def before_first_stop(text: str, stop_strings: Sequence[str]) -> str | None:
    """The text before the stop string that is completed first, found by trying every prefix of the text."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if matches:
            return text[: end - max(len(stop) for stop in matches)]
    return None


@QUICK
@given(st.data())
def test_stop_strings_across_any_borders(data: st.DataObject) -> None:
    words = st.text("ab", min_size=1, max_size=4)
    parts, stop_strings = data.draw(st.lists(words, max_size=8)), data.draw(st.lists(words, max_size=3))
    stops = StopStrings(stop_strings)
    sent, stopped = "", False
    for num_parts, part in enumerate(parts, 1):
        text, stopped = stops.push(part)
        sent += text
        assert not any(stop in sent for stop in stop_strings)
        if stopped:
            break
        unsent = "".join(parts[:num_parts])[len(sent) :]
        # only the beginning of a stop string is held back, and as much of the text as possible was sent
        assert unsent == stops.held_back
        assert not unsent or any(stop.startswith(unsent) for stop in stop_strings)
    expected = before_first_stop("".join(parts), stop_strings)
    assert (sent if stopped else None) == expected
    assert stopped or sent + stops.held_back == "".join(parts)


def test_a_stop_string_ends_the_answer_and_the_rest_is_sent_otherwise(vocabulary: Vocabulary) -> None:
    token_ids = vocabulary.encode("one two three")
    stopped = join_deltas(deltas_of(vocabulary, token_ids, ["o th"]))
    assert stopped.text == "one tw" and stopped.finish_reason == "stop"
    complete = join_deltas(deltas_of(vocabulary, token_ids, ["three four"]))
    assert complete.text == "one two three" and complete.finish_reason == "length"


def test_prompts_that_cannot_be(vocabulary: Vocabulary) -> None:
    with pytest.raises(RequestError, match="token 4096; the vocabulary has 4096"):
        vocabulary.encode([1, 4096])
    assert vocabulary.end_ids == [1] and vocabulary.defaults == {"temperature": 0.0}
