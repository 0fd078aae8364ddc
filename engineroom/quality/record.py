"""Scores as records: the share of exact answers by task and, where it was measured, the perplexity."""

from __future__ import annotations

from engineroom.kit.record import Record
from engineroom.quality.score import Scores


def quality_records(name: str, scores: Scores, command: str) -> list[Record]:
    """The records `name` (share of exact answers by task) and, if it was measured, `name-perplexity`."""
    counts = sorted({task_score.items for task_score in scores.tasks.values()})
    count = " or ".join(map(str, counts))
    shares = {task: [task_score.share] for task, task_score in scores.tasks.items()}
    what = f"Share of {count} held-out questions of each task answered exactly, greedy decoding"
    records = [Record.measured(name=name, what=what, unit="share", samples=shares, command=command)]
    if scores.perplexity is not None:
        what = (
            "Perplexity per token on held-out glossary, off-topic and system-turn chats, questions included"
        )
        samples = [scores.perplexity]
        records.append(
            Record.measured(name=f"{name}-perplexity", what=what, unit="", samples=samples, command=command)
        )
    return records
