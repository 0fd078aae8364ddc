"""Scores as records: one of exact-match shares by task, one of perplexity where it was measured."""

from __future__ import annotations

from engineroom.kit.record import Record
from engineroom.quality.score import Scores


def quality_records(name: str, scores: Scores, command: str) -> list[Record]:
    """Records `name` (share of exact answers by task) and, if measured, `name-perplexity`."""
    items = sorted({task.items for task in scores.tasks.values()})
    count = " or ".join(map(str, items))
    shares = {task: [result.share] for task, result in scores.tasks.items()}
    what = f"Share of {count} held-out questions of each task answered exactly, greedy decoding"
    records = [Record.measured(name=name, what=what, unit="share", samples=shares, command=command)]
    if scores.perplexity is not None:
        what = (
            "Perplexity per token on held-out glossary, off-topic and system-turn chats, questions included"
        )
        value = [scores.perplexity]
        more = Record.measured(name=f"{name}-perplexity", what=what, unit="", samples=value, command=command)
        records.append(more)
    return records
