"""People and the data generator can read the glossary."""

from __future__ import annotations

from pathlib import Path

import pytest

from engineroom.quality.data.glossary import GLOSSARY, load_terms, parse_line


def test_has_many_terms_each_readable() -> None:
    terms = load_terms()
    assert len(terms) >= 120
    for term in terms:
        words = f"{term.short} {term.detail}".split()
        assert 8 <= len(words) <= 40, term.name
        assert term.short.endswith(".") and term.detail.endswith("."), term.name
        assert term.answer.isascii(), term.name


def test_every_listed_line_is_a_term() -> None:
    listed = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("- ")]
    assert len(listed) == len(load_terms())


def test_a_name_means_one_thing() -> None:
    names = [name.lower() for term in load_terms() for name in term.names]
    assert len(names) == len(set(names))
    assert all(name.strip() == name and name for name in names)


def test_the_course_vocabulary_is_there() -> None:
    names = {name for term in load_terms() for name in term.names}
    expected = (
        "TTFT|ITL|TPOT|Goodput|KV cache|in-flight batching|GQA|Plugin|SmoothQuant|AWQ|FP8|Little's law|BLS"
    )
    for name in expected.split("|"):
        assert name in names, name


def test_acronyms_are_recognised() -> None:
    acronyms = {term.name for term in load_terms() if term.is_acronym}
    assert {"TTFT", "ITL", "SLO", "GQA", "AWQ", "BLS"} <= acronyms
    assert not {"vLLM", "Triton", "PagedAttention", "Goodput"} & acronyms


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("- TTFT: no bold name. None.", "not a glossary line"),
        ("- **TTFT** (a): Only one sentence.", "two sentences"),
        ("- **TTFT** (a): One. Two. Three.", "two sentences"),
        ("- **TTFT** (a): One. Two", "two sentences"),
    ],
)
def test_a_bad_line_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_line(line)


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "glossary.md"
    page.write_text("- **One** (uno): It is one. Yes.\n- **Two** (Uno): It is two. Yes.\n")
    with pytest.raises(ValueError, match=r"'Uno' names both 'One' and 'Two'"):
        load_terms(page)
