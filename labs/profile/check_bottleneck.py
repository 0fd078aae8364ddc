"""Judge the search for the planted bottleneck: the span accused, the evidence for it, and a second profile as proof."""

from __future__ import annotations

from math import isfinite

from labs.kit.check import close, require, require_names, require_number, require_whole_number, shown
from labs.profile.planted import SLOW, UNITS
from labs.profile.serving import Profile
from labs.profile.spans import self_times, total_times

EVIDENCE = ("span", "calls", "share")
LARGEST_SHARE = 0.5  # of the bottleneck's share of the time
SHARE_TOLERANCE = 0.02  # absolute: a share read off the picture


def require_accused(evidence: object, before: Profile) -> str:
    """Return the name of the span accused. Raises Mistake unless it is the planted one and the evidence is its own."""
    entries = require_names(evidence, EVIDENCE)
    span = entries["span"]
    names = ", ".join(sorted(SLOW))
    require(
        isinstance(span, str) and span in before.calls, f"`span` is {shown(span)}. The suspects are {names}."
    )
    _require_suspect(span, before)
    calls = require_whole_number("calls", entries["calls"])
    require(
        calls == before.calls[span],
        f"{span!r} was not called {calls} times. {_calls_hint(calls, before)}",
        f"Count the spans of the trace whose name is {span!r}.",
    )
    _require_share(span, entries["share"], before)
    return str(span)


def require_mended(span: str, before: Profile, after: Profile) -> None:
    """Raise Mistake unless the same load was served with the same tokens, and the span did and took much less."""
    require(isinstance(after, Profile), "`after` must be what `profile_serving` returned.")
    require(
        after.prompts == before.prompts and list(map(len, after.answers)) == list(map(len, before.answers)),
        "`after` served another load than `before`. Compare like with like: the same prompts and lengths.",
    )
    changed = sum(a != b for a, b in zip(after.answers, before.answers, strict=True))
    require(
        not changed,
        f"{changed} of {len(before.answers)} answers changed. Your function must return what the slow one returns.",
        _tokens_hint(span),
    )
    changed = sum(a != b for a, b in zip(after.texts, before.texts, strict=True))
    require(
        not changed,
        f"The tokens are the same, but {changed} of {len(before.texts)} texts changed. Each token's text must be sent "
        f"once, without a cut through a character.",
        "Decode a few tokens before the new ones as well, and cut their text off again.",
    )
    require(
        after.calls[span] == before.calls[span],
        f"{span!r} was called {after.calls[span]} times instead of {before.calls[span]}. The server still calls your "
        f"function as often; make each call cheap.",
    )
    _require_shrunk(span, before, after)


def _require_suspect(span: str, before: Profile) -> None:
    """Raise Mistake unless `span` is the suspect that touches far more than a healthy one would."""
    suspects = "Compare the self times of choose_token, cache_layout and detokenize."
    require(
        span != "forward",
        "`forward` is the model itself, the work that the server is there for. The bottleneck is one of the spans "
        "around it.",
        suspects,
    )
    require(
        span in SLOW,
        f"{span!r} belongs to the engine, and it is the same in every server. The bottleneck is in one of the server's "
        f"own functions.",
        suspects,
    )
    own = self_times(before.spans)[span]
    planted = [name for name in SLOW if before.touches_too_much(name)]
    require(
        len(planted) == 1,
        "`before` is no profile of a server with a planted bottleneck. Pass the one of `planted_for`.",
    )
    many = max(SLOW, key=lambda name: before.calls[name])
    require(
        span in planted,
        f"{span!r} takes {own:,.0f} µs by itself in the whole trace, and another suspect takes more."
        + (" It has many calls, but they are short." if before.calls[span] == before.calls[many] else ""),
        "Sum up self times by name, then take the suspect with the largest.",
    )


def _calls_hint(calls: int, before: Profile) -> str:
    if calls == len(before.spans):
        return "That is the number of all spans in the trace."
    if calls == before.calls["step"]:
        return "That is the number of steps; a span may occur several times in a step."
    if calls == len(before.prompts):
        return "That is the number of requests."
    others = [name for name, count in before.calls.items() if count == calls]
    return (
        f"{others[0]!r} was called that often." if others else "How often does its name occur in the trace?"
    )


def _require_share(span: str, value: object, before: Profile) -> None:
    share = require_number(value, subject="`share`")
    expected = before.share(span)
    own, total = self_times(before.spans)[span], total_times(before.spans)
    require(isfinite(share), f"`share` is {shown(value)}; it must be a number from 0 to 1.")
    require(
        not (share > 1 and abs(share / 100 - expected) <= SHARE_TOLERANCE),
        "`share` is in per cent. Give it as a number from 0 to 1.",
    )
    right = abs(share - expected) <= SHARE_TOLERANCE
    require(
        right or not close(share, own, 1e-2),
        "`share` is a time in microseconds. Divide it by the sum of the self times of all spans.",
    )
    require(
        right or not close(share, own / total["step"], 1e-2),
        "You divided by the time of `step` alone. Some spans lie outside of it: divide by the sum of all self times.",
    )
    require(
        right or not close(share, own / sum(total.values()), 1e-2),
        "You divided by the sum of the total times, in which nested spans count twice. Divide by the sum of the self "
        "times.",
    )
    require(
        right or not close(share, before.calls[span] / len(before.spans), 1e-2),
        "That is a share of the calls. Evidence is a share of the time.",
    )
    require(
        right,
        f"The self times of {span!r} are not {share:.3g} of all self times.",
        "`self_times(before.spans)[span] / sum(self_times(before.spans).values())`",
    )


def _tokens_hint(span: str) -> str:
    return {
        "choose_token": "Take the index of the largest logit, the first one where several are equal.",
        "cache_layout": "Return a contiguous tensor with the same shape and values.",
    }.get(span, "Return the text of the new tokens alone.")


def _require_shrunk(span: str, before: Profile, after: Profile) -> None:
    was, now = before.counts[span], after.counts[span]
    require(
        not after.touches_too_much(span),
        f"It still does too much: {now:,} {UNITS[span]}, and {was:,} before.",
        _work_hint(span),
    )
    share, new_share = before.share(span), after.share(span)
    require(
        new_share <= LARGEST_SHARE * share,
        f"{span!r} touches less now, {now:,} {UNITS[span]} instead of {was:,}, but it still has {new_share:.1%} of the "
        f"time, and had {share:.1%}. What else does your function do?",
    )


def _work_hint(span: str) -> str:
    return {
        "choose_token": "Let the tensor find its own maximum, and read one number.",
        "cache_layout": "`is_contiguous()` tells whether there is anything to do.",
        "detokenize": "The beginning of the answer was sent long ago. On how many tokens does the new text depend?",
    }[span]
