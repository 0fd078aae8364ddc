"""Exact match per task: the one measure of answer quality that every engine of the course must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel

from engineroom.quality.data import Chat, Item

Generate = Callable[[Sequence[Chat]], list[str]]
"""Answers, one for each chat, in the same order. Greedy decoding, no marker tokens in the text."""


class Wrong(BaseModel):
    """A question that was answered otherwise than expected."""

    question: str
    expected: str
    answer: str


class TaskScore(BaseModel):
    """Result on one task; `wrong` holds at most five examples."""

    items: int
    correct: int
    wrong: list[Wrong] = []

    @property
    def share(self) -> float:
        return self.correct / self.items


class Scores(BaseModel):
    """Results by task name."""

    tasks: dict[str, TaskScore]
    perplexity: float | None = None

    @property
    def worst(self) -> float:
        """The lowest share over the tasks."""
        return min(task.share for task in self.tasks.values())

    def summary(self) -> str:
        """One line per task, then the wrong answers that were kept, then the perplexity."""
        lines = [f"{name}: {t.correct}/{t.items} = {t.share:.3f}" for name, t in self.tasks.items()]
        for name, task in self.tasks.items():
            lines += [f"{name}: {w.question!r} -> {w.answer!r}, expected {w.expected!r}" for w in task.wrong]
        if self.perplexity is not None:
            lines.append(f"perplexity {self.perplexity:.4f}")
        return "\n".join(lines)


def score_task(items: Sequence[Item], answers: Sequence[str]) -> TaskScore:
    pairs = list(zip(items, answers, strict=True))
    wrong = [
        Wrong(question=item.messages[-1]["content"][-300:], expected=item.answer, answer=answer[:300])
        for item, answer in pairs
        if answer.strip() != item.answer.strip()
    ]
    return TaskScore(items=len(pairs), correct=len(pairs) - len(wrong), wrong=wrong[:5])


def score(generate: Generate, items: Sequence[Item]) -> Scores:
    """Ask every item and count exact matches by task.

    Raises ValueError when there is nothing to ask or when `generate` returns another number of answers.
    """
    if not items:
        raise ValueError("no items to score; take them from engineroom.quality.held_out(count)")
    tasks: dict[str, TaskScore] = {}
    for task in dict.fromkeys(item.task for item in items):
        group = [item for item in items if item.task == task]
        answers = generate([item.messages for item in group])
        if len(answers) != len(group):
            raise ValueError(
                f"expected {len(group)} answers, got {len(answers)}: generate must answer every chat"
            )
        tasks[task] = score_task(group, answers)
    return Scores(tasks=tasks)
