"""W3C trace context: which headers continue a trace, and which start a new one (w3.org/TR/trace-context)."""

from __future__ import annotations

import re
import string

from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace

from engineroom.tracing.tracer import remote_context

HEX = "0123456789abcdef"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"00-{TRACE_ID}-{SPAN_ID}-01"


def parse(*headers: str) -> tuple[str, str, int] | None:
    """Trace id, span id and flags of the parent; None if the trace is new."""
    context = remote_context({"traceparent": list(headers)} if headers else {})
    parent = trace.get_current_span(context).get_span_context()
    if not parent.is_valid:
        return None
    return f"{parent.trace_id:032x}", f"{parent.span_id:016x}", int(parent.trace_flags)


def by_grammar(header: str) -> tuple[str, str, int] | None:
    """The specification's rules, section 3.2 and 4.3: version 00 is exact; a later one may have more after a dash."""
    match = re.fullmatch(
        r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", header.strip(" \t")
    )
    if not match or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    if not int(match[2], 16) or not int(match[3], 16):
        return None
    return match[2], match[3], int(match[4], 16)


def hexadecimal(length: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=length, max_size=length)


FIELDS = st.tuples(hexadecimal(2), hexadecimal(32), hexadecimal(16), hexadecimal(2))
VALID = st.tuples(st.just("00"), hexadecimal(32), hexadecimal(16), hexadecimal(2)).map("-".join)
CHARACTERS = st.sampled_from(string.hexdigits + "-_ gG\t,;é")


@st.composite
def nearly_valid(draw: st.DrawFn) -> str:
    """A valid header with up to three characters replaced, removed or inserted."""
    header = list("-".join(draw(FIELDS)))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(header)))
        header[begin : begin + draw(st.integers(0, 2))] = draw(st.lists(CHARACTERS, max_size=2))
    return "".join(header)


@given(nearly_valid() | st.text(max_size=80).filter(lambda text: "\n" not in text))
@example("")
@example(HEADER)
@example(HEADER.upper())
@example(HEADER + "-00")
@example("cc" + HEADER[2:] + "-what-the-future-will-be-like")
@example("cc" + HEADER[2:] + ".what-the-future-will-not-be-like")
@example("ff" + HEADER[2:])
@example(HEADER.replace(TRACE_ID, "0" * 32))
@example(HEADER.replace(SPAN_ID, "0" * 16))
@example(HEADER[:-1])
@example(f" {HEADER}\t")
def test_a_header_means_what_the_specification_says(header: str) -> None:
    assert parse(header) == by_grammar(header)


@given(VALID.filter(lambda header: by_grammar(header) is not None))
def test_several_headers_start_a_new_trace(header: str) -> None:
    assert parse(header) is not None
    assert parse() is None and parse(header, header) is None and parse(header, HEADER) is None


def test_tracestate_travels_only_with_a_valid_traceparent() -> None:
    state = {"tracestate": ["vendor=1", "other=2"]}
    context = remote_context({"traceparent": [HEADER]} | state)
    assert trace.get_current_span(context).get_span_context().trace_state.to_header() == "vendor=1,other=2"
    context = remote_context({"traceparent": ["00"]} | state)
    assert not trace.get_current_span(context).get_span_context().trace_state
