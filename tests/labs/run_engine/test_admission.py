"""The situations of the admission check tell the wrong rules apart."""

from __future__ import annotations

from collections.abc import Sequence

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from labs.kit.replay import AdmissionRule
from labs.run_engine.check_admission import SITUATIONS, WRONG_RULES
from labs.run_engine.simulation import reference_rule


def always(request: Request, running: Sequence[Request], block_manager: BlockManager) -> bool:
    return True


def never(request: Request, running: Sequence[Request], block_manager: BlockManager) -> bool:
    return False


def decisions(rule: AdmissionRule) -> tuple[bool, ...]:
    return tuple(situation.decide(rule) for situation, _, _ in SITUATIONS)


def test_expected_decisions_are_those_of_the_scheduler_s_policy() -> None:
    assert decisions(reference_rule) == tuple(decision for _, decision, _ in SITUATIONS)


def test_no_two_wrong_rules_decide_alike() -> None:
    """Otherwise a hint would name a mistake that the learner did not make."""
    rules = [reference_rule, always, never, *(rule for rule, _ in WRONG_RULES)]
    assert len({decisions(rule) for rule in rules}) == len(rules)
