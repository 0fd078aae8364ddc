"""The exercises of lesson 06."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isinf, isnan
from typing import Any

import numpy as np

from labs.kit.check import Mistake, exercise, require, require_function, require_names, require_number
from labs.kit.replay import AdmissionRule, Arrival, Replay
from labs.run_engine.simulation import CacheSituation, reference_rule, simulate

RUN_NAMES = ("alone", "together", "paused", "reused")
# Each situation exposes a typical wrong rule.
NONE_RUNNING = CacheSituation(8, [], (40, 20))
MOSTLY_FREE = CacheSituation(20, [(40, 20, 5)], (40, 20))
PROMPT_FITS = CacheSituation(4, [(30, 2, 1)], (60, 80))
RUNNING_GROWS = CacheSituation(6, [(60, 68, 2)], (60, 50))
PARTIAL_BLOCKS = CacheSituation(3, [(33, 2, 1)], (33, 2))
EXACT_FIT = CacheSituation(4, [(30, 30, 1)], (30, 30))
BLOCKS_HELD = CacheSituation(9, [(100, 28, 20)], (100, 28))


@exercise("06.admission", version=1, title="Write the admission rule", minutes=12)
def admission(rule: AdmissionRule) -> None:
    require_function(rule, "in_flight")
    admitted = NONE_RUNNING.decide(rule)
    require(
        isinstance(admitted, bool | np.bool_),
        f"The function returned {admitted!r}, not True or False. Does it `return`?",
    )
    require(
        admitted,
        f"{NONE_RUNNING}: your rule lets it wait. If no request starts when none runs, all wait for ever.",
    )
    require(
        MOSTLY_FREE.decide(rule),
        f"{MOSTLY_FREE}: your rule lets it wait, with most blocks free. That is still static batching: running "
        f"requests are no reason to wait.",
    )
    require(
        not PROMPT_FITS.decide(rule),
        f"{PROMPT_FITS}: your rule lets it start. Its prompt fits. Its answer grows, and finds no free block.",
        "`request.max_total_tokens` counts prompt and answer; `block_manager.blocks_needed(tokens)` is the number of "
        "blocks for that.",
    )
    require(
        not RUNNING_GROWS.decide(rule),
        f"{RUNNING_GROWS}: your rule lets it start. It fits into what is free now, but the running request does not "
        f"have all its blocks yet.",
        "Each running request still needs `block_manager.blocks_needed(other.max_total_tokens) - "
        "len(other.block_table.block_ids)` blocks. Add those.",
    )
    require(
        not PARTIAL_BLOCKS.decide(rule),
        f"{PARTIAL_BLOCKS}: your rule lets it start. 70 tokens are less than 96, but a block has one owner: round up "
        f"for each request.",
    )
    require(
        BLOCKS_HELD.decide(rule),
        f"{BLOCKS_HELD}: your rule lets it wait. The running request needs 4 blocks and holds them. They are no longer "
        f"in `block_manager.num_free_blocks`, so count only what it lacks.",
    )
    require(
        EXACT_FIT.decide(rule),
        f"{EXACT_FIT}: your rule lets it wait. Two and two blocks are needed, and four are free: equal is enough.",
    )
    _check_in_trace(rule)


def _check_in_trace(rule: AdmissionRule) -> None:
    """Find the mistakes that show only on a whole trace, which is simulated."""
    lengths = np.random.default_rng(6).integers(1, 150, (40, 2))  # of prompts and answers, in tokens
    trace = [
        Arrival([1] * int(prompt_len), int(answer_len), 3 * index)
        for index, (prompt_len, answer_len) in enumerate(lengths)
    ]
    try:
        replay = simulate(rule, trace)
    except RuntimeError:
        raise Mistake(
            "On a trace of 40 requests there is a step in which none runs, and your rule still lets none start."
        ) from None
    reference = simulate(reference_rule, trace)
    require(
        not replay.num_preemptions,
        f"On a trace of 40 requests blocks ran out, and requests were paused {replay.num_preemptions} times. A request "
        f"that starts must be able to finish.",
    )
    require(
        len(replay.steps) <= len(reference.steps),
        f"On a trace of 40 requests you need {len(replay.steps)} steps, and {len(reference.steps)} are enough: your "
        f"rule lets requests wait that fit.",
    )


@exercise("06.same", version=1, title="The same tokens, alone or batched", minutes=10)
def same(proof: Mapping[str, Replay], dtype: str) -> None:
    require_names(proof, RUN_NAMES)
    for name, run in proof.items():
        require(isinstance(run, Replay), f"`{name}` is {type(run).__name__}; pass what `replay` returned.")
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


@exercise("06.break_even", version=1, title="When a build has paid for itself", minutes=6)
def break_even(function: Callable[[float, float, float], float]) -> None:
    require_function(function, "break_even")
    tokens: Any = function(100.0, 250.0, 200.0)  # saves 1 ms a token: 100,000 tokens
    mistakes = {
        400.0: "Those are seconds: how long the faster engine serves until then. How many tokens is that?",
        500.0: "Those are seconds, of the slower engine. How many tokens is that?",
        2.0: "You divided the build by the difference of the rates. Rates do not add up; the seconds of a token do.",
        25_000.0: "The engine could have served that many tokens during the build. It need not catch up with itself.",
        20_000.0: "The other engine serves that many tokens during the build. It goes on serving until you catch up.",
        5_000.0: "You multiplied by the difference of the rates. What is saved on each token is a time.",
        -100_000.0: "Right but for the sign: which of the two engines takes longer for a token?",
    }
    require_number(tokens, mistakes)
    require(
        abs(tokens - 100_000) < 0.01,
        f"A build of 100 s, 250 against 200 tokens/s: I get 100,000 tokens, you {tokens:,.4g}.",
        "One token takes 1 / rate seconds. The difference is what each token saves.",
    )
    _check_never(function)


def _check_never(function: Callable[[float, float, float], float]) -> None:
    for built_rate, other_rate in ((200.0, 200.0), (180.0, 200.0)):
        try:
            tokens = function(100.0, built_rate, other_rate)
        except ZeroDivisionError:
            raise Mistake(
                "At equal rates you divide by zero. A build that saves nothing never pays: `math.inf`."
            ) from None
        require(
            not isnan(tokens) and tokens > 0,
            f"{built_rate:g} against {other_rate:g} tokens/s gives {tokens:,.4g} tokens. Never is `math.inf`.",
        )
        require(
            isinf(tokens),
            f"{built_rate:g} against {other_rate:g} tokens/s never pays: return `math.inf`, not {tokens:,.4g}.",
        )
    require(
        function(0.0, 250.0, 200.0) != inf,
        "A build from the build cache takes no time, so it pays from the first token.",
    )
