"""The exercises of lesson 06."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isinf, isnan

from labs.kit.check import (
    Mistake,
    exercise,
    require,
    require_formula,
    require_function,
    require_names,
    require_number,
)
from labs.kit.replay import AdmissionRule, Replay
from labs.kit.values import type_name
from labs.run_engine.check_admission import check_rule

RUN_NAMES = ("alone", "together", "paused", "reused")
Rates = Callable[
    [float, float, float], float
]  # build seconds, rates of the built and of the other engine -> tokens


@exercise("06.admission", version=1, title="Write the admission rule", minutes=12)
def admission(rule: AdmissionRule) -> None:
    require_function(rule, "in_flight")
    check_rule(rule)


@exercise("06.same", version=1, title="The same tokens, alone or batched", minutes=10)
def same(proof: object, dtype: str) -> None:
    runs = require_names(proof, RUN_NAMES)
    for name, run in runs.items():
        require(isinstance(run, Replay), f"`{name}` is {type_name(run)}; pass what `replay` returned.")
    _compare({name: runs[name] for name in RUN_NAMES}, dtype)


def _compare(proof: Mapping[str, Replay], dtype: str) -> None:
    """Raise Mistake unless each run did what its name says, and all have the same answers."""
    _check_runs(proof)
    alone = proof["alone"]
    requests = [(arrival.token_ids, arrival.max_tokens) for arrival in alone.trace]
    for name, run in proof.items():
        require(
            [(arrival.token_ids, arrival.max_tokens) for arrival in run.trace] == requests,
            f"`{name}` served other requests than `alone`. Compare like with like: one trace for all.",
        )
        num_different = sum(
            answer != expected for answer, expected in zip(run.answers, alone.answers, strict=True)
        )
        require(
            not num_different or dtype != "float32",
            f"`{name}`: {num_different} answers differ from `alone`. In float32 that is a bug of the engine, not "
            f"yours: please report it with this trace.",
        )


def _check_runs(proof: Mapping[str, Replay]) -> None:
    """Each run did what its name says."""
    alone, together, paused, reused = (proof[name] for name in RUN_NAMES)
    require(
        alone.largest_batch == 1,
        f"`alone` computed {alone.largest_batch} requests in one step. Run one at a time: a rule can ensure "
        f"that, or `max_batch_size`.",
        "`max_batch_size=1` has one slot.",
    )
    for name in RUN_NAMES[1:]:
        require(
            proof[name].largest_batch > 1,
            f"`{name}` never computed two requests in one step: no requests were batched.",
        )
    require(
        not together.num_preemptions,
        f"`together` paused {together.num_preemptions} times: that is `paused` already. Give it a larger cache.",
    )
    require(
        paused.num_preemptions,
        "`paused` paused no request. Blocks must run out: take a policy that starts what fits now, and a cache so "
        "small that it does not fit later.",
        'policy="max_utilization", and a `kv_tokens` of two or three of the longest requests.',
    )
    require(
        reused.num_reused_tokens,
        "`reused` found nothing in the cache. Reuse is off unless you ask for it, and a request that starts in the "
        "same step as the first finds nothing there yet.",
        "`reuse=True`, and few slots: `max_batch_size=2`.",
    )


# A build and two rates of which no two numbers have the same ratio.
PAYING = {
    "a build of 100 s, 250 against 200 tokens/s": (100.0, 250.0, 200.0),
    "a build of 37 s, 90 against 64 tokens/s": (37.0, 90.0, 64.0),
    "a build of 240 s, 41.5 against 12.25 tokens/s": (240.0, 41.5, 12.25),
}


def tokens_until_paid(build: float, ours: float, theirs: float) -> float:
    """After how many tokens a build has paid, the answer of 06.break_even."""
    saved = 1 / theirs - 1 / ours  # seconds for each token
    return build / saved if saved > 0 else inf


BREAK_EVEN_MISTAKES: list[tuple[Rates, str]] = [
    (
        lambda build, ours, theirs: tokens_until_paid(build, ours, theirs) / ours,
        "Those are seconds: how long the faster engine serves until then. How many tokens is that?",
    ),
    (
        lambda build, ours, theirs: tokens_until_paid(build, ours, theirs) / theirs,
        "Those are seconds, of the slower engine. How many tokens is that?",
    ),
    (
        lambda build, ours, theirs: build / (ours - theirs),
        "You divided the build by the difference of the rates. Rates do not add up; the seconds of a token do.",
    ),
    (
        lambda build, ours, theirs: build * ours,
        "The engine could have served that many tokens during the build. It need not catch up with itself.",
    ),
    (
        lambda build, ours, theirs: build * theirs,
        "The other engine serves that many tokens during the build. It goes on serving until you catch up.",
    ),
    (
        lambda build, ours, theirs: build * (ours - theirs),
        "You multiplied by the difference of the rates. What is saved on each token is a time.",
    ),
    (
        lambda build, ours, theirs: -tokens_until_paid(build, ours, theirs),
        "Right but for the sign: which of the two engines takes longer for a token?",
    ),
    (
        lambda build, ours, theirs: tokens_until_paid(build, ours, theirs) / 1000,
        "Those are thousands of tokens. How many tokens is that?",
    ),
    (
        lambda build, ours, theirs: build * ours / theirs,
        "You scaled the build by the ratio of the rates. How many seconds does the built engine save on each token?",
    ),
    (
        lambda build, ours, theirs: inf,
        "This build pays: the built engine is faster. `math.inf` is for the other case.",
    ),
]


@exercise("06.break_even", version=1, title="When a build has paid for itself", minutes=6)
def break_even(function: Rates) -> None:
    require_function(function, "break_even")
    require_formula(
        function,
        tokens_until_paid,
        PAYING,
        "",
        "One token takes 1 / rate seconds. The difference is what each token saves.",
        mistakes=BREAK_EVEN_MISTAKES,
    )
    _check_never(function)


def _check_never(function: Rates) -> None:
    for built_rate, other_rate in ((200.0, 200.0), (180.0, 200.0), (12.5, 50.0)):
        rates = f"{built_rate:g} against {other_rate:g} tokens/s"
        try:
            tokens = require_number(
                function(100.0, built_rate, other_rate), subject=f"For {rates} the function"
            )
        except ZeroDivisionError:
            raise Mistake(
                "At equal rates you divide by zero. A build that saves nothing never pays: `math.inf`."
            ) from None
        require(not isnan(tokens) and tokens > 0, f"{rates} gives {tokens:,.4g} tokens. Never is `math.inf`.")
        require(isinf(tokens), f"{rates} never pays: return `math.inf`, not {tokens:,.4g}.")
    tokens = require_number(function(0.0, 250.0, 200.0), subject="For a build of 0 s the function")
    require(
        abs(tokens) <= 1,
        "A build from the build cache takes no time, so it pays from the first token: the answer is 0.",
    )
