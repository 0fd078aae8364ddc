"""Exact match by task: the measure of answer quality that every engine of the course must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel

from engineroom.quality.data import Chat, Item

Generate = Callable[[Sequence[Chat]], list[str]]
"""Returns one answer for each chat, in the same order: greedy decoding, no marker tokens in the text."""


class WrongAnswer(BaseModel):
    """A question whose answer was not the expected one."""

    question: str
    expected: str
    answer: str

    def __str__(self) -> str:
        return f"{self.question!r} -> {self.answer!r}, expected {self.expected!r}"


class TaskScore(BaseModel):
    """The result on one task; `wrong` has at most five examples."""

    items: int
    correct: int
    wrong: list[WrongAnswer] = []

    @property
    def share(self) -> float:
        return self.correct / self.items


class Scores(BaseModel):
    """Results by task name."""

    tasks: dict[str, TaskScore]
    perplexity: float | None = None

    @property
    def worst(self) -> float:
        """The lowest share of all tasks."""
        return min(task.share for task in self.tasks.values())

    def summary(self) -> str:
        """One line for each task, then one for each wrong answer that was kept, then the perplexity."""
        lines = [
            f"{name}: {task.correct}/{task.items} = {task.share:.3f}" for name, task in self.tasks.items()
        ]
        for name, task in self.tasks.items():
            lines += [f"{name}: {wrong}" for wrong in task.wrong]
        if self.perplexity is not None:
            lines.append(f"perplexity {self.perplexity:.4f}")
        return "\n".join(lines)


def score_task(items: Sequence[Item], answers: Sequence[str]) -> TaskScore:
    pairs = list(zip(items, answers, strict=True))
    wrong = [
        WrongAnswer(question=item.messages[-1]["content"][-300:], expected=item.answer, answer=answer[:300])
        for item, answer in pairs
        if answer.strip() != item.answer.strip()
    ]
    return TaskScore(items=len(pairs), correct=len(pairs) - len(wrong), wrong=wrong[:5])


def score(generate: Generate, items: Sequence[Item]) -> Scores:
    """Let `generate` answer every item, and count exact matches by task.

    Raises ValueError when there are no items, or when `generate` returns another number of answers.
    """
    if not items:
        raise ValueError("There are no items to score. Take them from engineroom.quality.held_out(count).")
    tasks: dict[str, TaskScore] = {}
    for task in dict.fromkeys(item.task for item in items):
        group = [item for item in items if item.task == task]
        answers = generate([item.messages for item in group])
        if len(answers) != len(group):
            raise ValueError(
                f"generate returned {len(answers)} answers for {len(group)} chats. It must answer every chat."
            )
        tasks[task] = score_task(group, answers)
    return Scores(tasks=tasks)
