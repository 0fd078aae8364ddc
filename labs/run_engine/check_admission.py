"""What can be wrong with an admission rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from labs.kit.calls import LearnerFunction
from labs.kit.check import Mistake, require, shown
from labs.kit.replay import AdmissionRule, Arrival
from labs.run_engine.simulation import CacheSituation, reference_rule, simulate

# Each situation exposes a typical wrong rule.
NONE_RUNNING = CacheSituation(8, [], (40, 20))
MOSTLY_FREE = CacheSituation(20, [(40, 20, 5)], (40, 20))
TOO_LONG = CacheSituation(8, [(40, 20, 5)], (300, 20))
PROMPT_FITS = CacheSituation(4, [(30, 2, 1)], (60, 80))
RUNNING_GROWS = CacheSituation(6, [(60, 68, 2)], (60, 50))
PARTIAL_BLOCKS = CacheSituation(3, [(33, 2, 1)], (33, 2))
BLOCKS_HELD = CacheSituation(9, [(100, 28, 20)], (100, 28))
EXACT_FIT = CacheSituation(4, [(30, 30, 1)], (30, 30))
SMALL_BLOCKS = CacheSituation(9, [(20, 12, 1)], (100, 28), tokens_per_block=16)
LARGE_BLOCKS = CacheSituation(3, [(60, 68, 2)], (50, 10), tokens_per_block=64)
SMALL_BLOCKS_HELD = CacheSituation(9, [(50, 14, 10)], (40, 20), tokens_per_block=16)
OVERCOMMITTED = CacheSituation(4, [(30, 98, 2), (30, 98, 2)], (5, 5))
HELD_HINT = "They are no longer in `block_manager.num_free_blocks`, so count only what it lacks."
BLOCK_SIZE_HINT = "The block size is the block manager's: ask `block_manager.blocks_needed(tokens)`."
# The situations in the order in which a learner should mend them, with the hints for a wrong decision.
SITUATIONS: list[tuple[CacheSituation, bool, tuple[str, ...]]] = [
    (
        NONE_RUNNING,
        True,
        ("your rule lets it wait. If no request starts when none runs, all wait for ever.",),
    ),
    (
        MOSTLY_FREE,
        True,
        (
            "your rule lets it wait, with most blocks free. That is still static batching: running requests are no "
            "reason to wait.",
        ),
    ),
    (
        TOO_LONG,
        False,
        (
            "your rule lets it start. Not even its prompt fits: does your rule look at `request`, and at the blocks?",
        ),
    ),
    (
        PROMPT_FITS,
        False,
        (
            "your rule lets it start. Its prompt fits. Its answer grows, and finds no free block.",
            "`request.max_total_tokens` counts prompt and answer; `block_manager.blocks_needed(tokens)` is the number "
            "of blocks for that.",
        ),
    ),
    (
        RUNNING_GROWS,
        False,
        (
            "your rule lets it start. It fits into what is free now, but the running request does not have all its "
            "blocks yet.",
            "Each running request still needs `block_manager.blocks_needed(other.max_total_tokens) - "
            "len(other.block_table.block_ids)` blocks. Add those.",
        ),
    ),
    (
        PARTIAL_BLOCKS,
        False,
        (
            "your rule lets it start. 70 tokens are less than 96, but a block has one owner: round up for each "
            "request.",
        ),
    ),
    (
        BLOCKS_HELD,
        True,
        (f"your rule lets it wait. The running request needs 4 blocks and holds them. {HELD_HINT}",),
    ),
    (
        EXACT_FIT,
        True,
        ("your rule lets it wait. Two and two blocks are needed, and four are free: equal is enough.",),
    ),
    (SMALL_BLOCKS, False, (f"your rule lets it start. {BLOCK_SIZE_HINT}",)),
    (LARGE_BLOCKS, True, (f"your rule lets it wait. {BLOCK_SIZE_HINT}",)),
    (
        SMALL_BLOCKS_HELD,
        True,
        (f"your rule lets it wait. The running request needs 4 blocks and holds them. {HELD_HINT}",),
    ),
    (
        OVERCOMMITTED,
        False,
        ("your rule lets it start. The running requests lack more blocks than are free.",),
    ),
]


def _lacking(requests: Sequence[Request], block_manager: BlockManager) -> int:
    """How many blocks the requests still need until their longest answers end."""
    needed = sum(block_manager.blocks_needed(request.max_total_tokens) for request in requests)
    return needed - sum(len(request.block_table.block_ids) for request in requests)


def _hard_coded(tokens_per_block: int) -> AdmissionRule:
    def rule(request: Request, running: Sequence[Request], block_manager: BlockManager) -> bool:
        needed = sum(ceil(other.max_total_tokens / tokens_per_block) for other in [request, *running])
        num_own_blocks = sum(len(other.block_table.block_ids) for other in running)
        return needed - num_own_blocks <= block_manager.num_free_blocks

    return rule


# Wrong rules that several situations would describe, none of them well.
WRONG_RULES: list[tuple[AdmissionRule, str]] = [
    (
        lambda request, running, blocks: _lacking([request, *running], blocks) <= blocks.num_blocks,
        "You compare with all blocks of the cache, `num_blocks`. Those that the running requests hold are not free.",
    ),
    (
        lambda request, running, blocks: _lacking(running, blocks) <= blocks.num_free_blocks,
        "You count the blocks of the running requests alone. The waiting request needs blocks too.",
    ),
    *(
        (
            _hard_coded(tokens_per_block),
            f"You compute with blocks of {tokens_per_block} tokens. {BLOCK_SIZE_HINT}",
        )
        for tokens_per_block in (16, 32)
    ),
]


def check_rule(rule: AdmissionRule) -> None:
    """Raise Mistake unless the rule is TensorRT-LLM's GUARANTEED_NO_EVICT."""
    decisions = [_decide(situation, rule) for situation, _, _ in SITUATIONS]
    if decisions != [decision for _, decision, _ in SITUATIONS]:
        for wrong_rule, hint in WRONG_RULES:
            require(decisions != [bool(situation.decide(wrong_rule)) for situation, _, _ in SITUATIONS], hint)
    for decision, (situation, expected, hints) in zip(decisions, SITUATIONS, strict=True):
        require(decision == expected, f"{situation}: {hints[0]}", *hints[1:])
    _check_side_effects(rule)
    _check_in_trace(rule)


def _decide(situation: CacheSituation, rule: AdmissionRule) -> bool:
    output = situation.decide(rule)
    advice = " Does it `return` on every path?" if output is None else ""
    is_decision = isinstance(output, bool | int | float) and output in (True, False)
    require(is_decision, f"The function gave {shown(output)}, not True or False.{advice}")
    return bool(output)


def _check_side_effects(rule: AdmissionRule) -> None:
    function: Callable[..., object] = rule.call if isinstance(rule, LearnerFunction) else rule
    request, running, block_manager = RUNNING_GROWS.arguments()

    def state() -> tuple[object, ...]:
        tables = [list(other.block_table.block_ids) for other in [request, *running]]
        return tables, len(request.token_ids), block_manager.num_free_blocks

    before = state()
    function(request, running, block_manager)
    try:
        is_unchanged = state() == before and len(running) == len(RUNNING_GROWS.running)
    except (AttributeError, TypeError):  # a request without its block table, for instance
        is_unchanged = False
    require(
        is_unchanged,
        "Your rule changes what it is asked about: blocks were allocated or freed, or the list of running requests is "
        "another. A rule only answers; the scheduler allocates.",
    )


def _check_in_trace(rule: AdmissionRule) -> None:
    """Find the mistakes that show only on a whole trace, which is simulated."""
    lengths = np.random.default_rng(6).integers(1, 150, (40, 2))  # of prompts and answers, in tokens
    trace = [
        Arrival([1] * int(prompt_len), int(answer_len), 3 * index)
        for index, (prompt_len, answer_len) in enumerate(lengths)
    ]
    try:
        replay = simulate(rule, trace)
    except RuntimeError as error:
        if getattr(rule, "error", None) is error:  # the learner's own
            raise
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
