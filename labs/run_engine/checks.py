"""The exercises of lesson 06."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isinf, isnan
from typing import Any

import numpy as np

from labs.kit.check import exercise, require, require_function, require_names, require_number
from labs.run_engine.simulation import Situation, on_paper, right
from labs.run_engine.replay import Arrival, Rule, Run

WAYS = ("alone", "together", "paused", "reused")
IDLE = Situation(8, [], (40, 20))
ROOM = Situation(20, [(40, 20, 5)], (40, 20))
PROMPT = Situation(4, [(30, 2, 1)], (60, 80))
GROWTH = Situation(6, [(60, 68, 2)], (60, 50))
UNITS = Situation(3, [(33, 2, 1)], (33, 2))
EXACT = Situation(4, [(30, 30, 1)], (30, 30))
HELD = Situation(9, [(100, 28, 20)], (100, 28))


@exercise("06.admission", version=1, title="Write the admission rule", minutes=12)
def admission(rule: Rule) -> None:
    require_function(rule, "in_flight")
    got = IDLE.ask(rule)
    require(
        isinstance(got, bool | np.bool_), f"The function gave {got!r}, not True or False. Does it `return`?"
    )
    require(got, f"{IDLE}: and you let it wait. If nobody starts when nobody runs, all wait for ever.")
    require(
        ROOM.ask(rule),
        f"{ROOM}: and you let it wait, with most blocks free. That is static batching still: who runs is no reason.",
    )
    require(
        not PROMPT.ask(rule),
        f"{PROMPT}: you let it start. Its prompt fits. Its answer grows, and finds no block.",
        "`request.longest` is prompt and answer; `blocks.needed(tokens)` says how many blocks that is.",
    )
    require(
        not GROWTH.ask(rule),
        f"{GROWTH}: you let it start. It fits into what is free now, but the other one has not all its blocks yet.",
        "Each running request still needs `blocks.needed(one.longest) - len(one.pages.blocks)`. Add those.",
    )
    require(
        not UNITS.ask(rule),
        f"{UNITS}: you let it start. 70 tokens are less than 96, but a block has one owner: round up for each request.",
    )
    require(
        HELD.ask(rule),
        f"{HELD}: and you let it wait. The running one needs 4 blocks and holds them: what it holds is no longer in "
        f"`blocks.available`, so count only what it lacks.",
    )
    require(
        EXACT.ask(rule),
        f"{EXACT}: and you let it wait. Two and two blocks are needed, four are there: equal is enough.",
    )
    _in_a_trace(rule)


def _in_a_trace(rule: Rule) -> None:
    """Everything else: the rule serves a trace, on paper."""
    draw = np.random.default_rng(6)
    trace = [
        Arrival([1] * int(prompt), int(answer), 3 * n)
        for n, (prompt, answer) in enumerate(draw.integers(1, 150, (40, 2)))
    ]
    try:
        theirs = on_paper(rule, trace)
    except RuntimeError:
        require(
            False, "On a trace of 40 requests it comes to nobody running, and you still let nobody start."
        )
    ours = on_paper(right, trace)
    require(
        not theirs.paused,
        f"On a trace of 40 requests blocks ran out, and requests were paused {theirs.paused} times. Whoever starts "
        f"must be able to finish.",
    )
    require(
        len(theirs.steps) <= len(ours.steps),
        f"On a trace of 40 requests you need {len(theirs.steps)} steps, {len(ours.steps)} are enough: you let requests "
        f"wait that fit.",
    )


@exercise("06.same", version=1, title="The same tokens, alone or batched", minutes=10)
def same(proof: Mapping[str, Run], dtype: str) -> None:
    require_names(proof, WAYS)
    for name, run in proof.items():
        require(isinstance(run, Run), f"`{name}` is {type(run).__name__}; give what `replay` returned.")
    _happened(proof)
    first = proof["alone"]
    for name, run in proof.items():
        asked = [(one.prompt, one.answer) for one in run.trace]
        require(
            asked == [(one.prompt, one.answer) for one in first.trace],
            f"`{name}` served other requests than `alone`. Compare like with like: one trace for all.",
        )
        differ = sum(a != b for a, b in zip(run.answers, first.answers, strict=True))
        require(
            not differ or dtype != "float32",
            f"`{name}`: {differ} answers differ from `alone`. In float32 that is a bug of the engine, not yours: "
            f"please report it with this trace.",
        )


def _happened(proof: Mapping[str, Run]) -> None:
    """Each run did what its name says."""
    require(
        proof["alone"].together == 1,
        f"`alone` computed {proof['alone'].together} requests in one step. One at a time: a rule may say so, or "
        f"`max_batch_size`.",
        "`max_batch_size=1` has one seat.",
    )
    for name in WAYS[1:]:
        require(
            proof[name].together > 1, f"`{name}` never computed two requests in one step: nobody was batched."
        )
    require(
        not proof["together"].paused,
        f"`together` paused {proof['together'].paused} times: that is `paused` already. Give it a larger cache.",
    )
    require(
        proof["paused"].paused,
        "`paused` paused nobody. Blocks must run out: a policy that starts what fits now, and a cache so small that it "
        "does not fit later.",
        'policy="max_utilization", and a `kv_tokens` of two or three of the longest requests.',
    )
    require(
        proof["reused"].reused,
        "`reused` found nothing in the cache. Reuse is off unless you ask for it, and who starts in the same step as "
        "the first finds nothing there yet.",
        "`reuse=True`, and few seats: `max_batch_size=2`.",
    )


@exercise("06.break_even", version=1, title="When a build has paid for itself", minutes=6)
def break_even(function: Callable[[float, float, float], float]) -> None:
    require_function(function, "break_even")
    got: Any = function(100.0, 250.0, 200.0)  # saves 1 ms a token: 100,000 tokens
    mistakes = {
        400.0: "Those are seconds: how long the faster engine serves until then. How many tokens is that?",
        500.0: "Those are seconds, of the slower engine. How many tokens is that?",
        2.0: "You divided the build by the difference of the rates. Rates do not add up; seconds for a token do.",
        25_000.0: "That many tokens the engine could have served during the build. It need not catch up with itself.",
        20_000.0: "That many tokens the other one serves during the build. It goes on serving while yours catches up.",
        5_000.0: "You multiplied with the difference of the rates. What is saved on each token is a time.",
        -100_000.0: "Right but for the sign: which of the two takes longer for a token?",
    }
    require_number(got, mistakes)
    require(
        abs(got - 100_000) < 0.01,
        f"A build of 100 s, 250 against 200 tokens/s: I get 100,000 tokens, you {got:,.4g}.",
        "One token takes 1 / rate seconds. The difference is what each token saves.",
    )
    _never(function)


def _never(function: Callable[[float, float, float], float]) -> None:
    for ours, theirs in ((200.0, 200.0), (180.0, 200.0)):
        try:
            got = function(100.0, ours, theirs)
        except ZeroDivisionError:
            require(
                False, "At equal rates you divide by zero. A build that saves nothing never pays: `math.inf`."
            )
        require(
            not isnan(got) and got > 0,
            f"{ours:g} against {theirs:g} tokens/s gives {got:,.4g} tokens. Never is `math.inf`.",
        )
        require(
            isinf(got), f"{ours:g} against {theirs:g} tokens/s never pays: return `math.inf`, not {got:,.4g}."
        )
    require(
        function(0.0, 250.0, 200.0) != inf,
        "A build out of the cache takes no time, and pays from the first token.",
    )
