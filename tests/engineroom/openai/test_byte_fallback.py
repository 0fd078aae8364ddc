"""Answers of byte-fallback tokenizers, as Llama 2, Mistral and Gemma have them, with any bytes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from engineroom.openai.text import Vocabulary, join_deltas
from tests.engineroom.openai.test_text import QUICK, before_first_stop, deltas_of

WORDS = ["\u2581", "a", "b", "\u00bb", "\u65e5", "\u2581the", "\ufffd", "\U0001f600"]
TOKENS = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
IDS = {token: token_id for token_id, token in enumerate(TOKENS)}
TO_SPACE = decoders.Replace("\u2581", " ")
DECODERS = {
    "Gemma": [TO_SPACE, decoders.ByteFallback(), decoders.Fuse()],
    "Llama 2": [TO_SPACE, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)],
    "Metaspace": [decoders.ByteFallback(), decoders.Metaspace()],
}


@pytest.fixture(scope="module", params=DECODERS)
def byte_fallback(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    tokenizer = Tokenizer(BPE(IDS, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(DECODERS[request.param])
    folder = tmp_path_factory.mktemp("tokenizer")
    options = {"eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": False}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options).save_pretrained(folder)
    return Vocabulary(Path(folder))


def decode(vocabulary: Vocabulary, token_ids: list[int]) -> str:
    return vocabulary.tokenizer.decode(
        token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


# the bytes of whole characters, parts of characters, and words with special tokens
CHARACTERS = st.sampled_from("\n \u00e9\u65e5\U0001f600").map(
    lambda c: [f"<0x{byte:02X}>" for byte in c.encode()]
)
PARTS = st.lists(
    st.sampled_from([f"<0x{byte:02X}>" for byte in (0x0A, 0x61, 0x80, 0x98, 0xE2, 0xF0, 0xFF)]), max_size=5
)
TEXTS = st.lists(st.sampled_from([*WORDS, "<unk>", "</s>"]), max_size=3)
ANSWERS = st.lists(CHARACTERS | PARTS | TEXTS, min_size=1, max_size=12).map(
    lambda groups: [IDS[token] for group in groups for token in group] or [IDS["a"]]
)
ANY_IDS = st.lists(st.integers(0, len(TOKENS)), min_size=1, max_size=30)


@QUICK
@given(token_ids=ANSWERS | ANY_IDS)
def test_any_bytes_give_the_text_of_all_tokens_at_once(
    byte_fallback: Vocabulary, token_ids: list[int]
) -> None:
    deltas = deltas_of(byte_fallback, token_ids)
    assert len(deltas) == len(token_ids)
    assert join_deltas(deltas).text == decode(byte_fallback, token_ids)


@QUICK
@given(token_ids=ANSWERS, stop=st.sampled_from(["\n", "a", " ", "\u00e9", "a\n", "\u65e5b"]))
def test_a_stop_string_ends_the_answer_with_its_last_token(
    byte_fallback: Vocabulary, token_ids: list[int], stop: str
) -> None:
    """Also where it ends within a run of bytes: the answer is the text before it, of the tokens so far."""
    deltas = deltas_of(byte_fallback, token_ids, [stop])
    texts = [decode(byte_fallback, token_ids[:length]) for length in range(1, len(token_ids) + 1)]
    stops = [length for length, text in enumerate(texts) if before_first_stop(text, [stop]) is not None]
    assert len(deltas) == (stops[0] + 1 if stops else len(token_ids))
    expected = before_first_stop(texts[stops[0]], [stop]) if stops else texts[-1]
    assert join_deltas(deltas).text == expected


def test_text_is_sent_as_soon_as_no_token_can_change_it(byte_fallback: Vocabulary) -> None:
    token_ids = [IDS[token] for token in ("a", "<0xC3>", "<0xA9>", "b", "<0xF0>", "\u00bb", "a")]
    texts = [delta.text for delta in deltas_of(byte_fallback, token_ids)]
    assert texts == ["a", "", "", "\u00e9b", "", "\ufffd\u00bb", "a"]
