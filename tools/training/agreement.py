"""How often the draft model's most likely next token is the course model's.

`python -m tools.training.agreement` predicts the tokens of held-out answers with both models and saves a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from engineroom.kit.record import Record
from engineroom.quality.data import TASKS, Item, held_out_items
from engineroom.quality.data.item import render
from engineroom.quality.local import load_model

MODELS = Path(__file__).parents[2] / "models"
ITEMS = 100


def predict(model: PreTrainedModel, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """The most likely token at each position of the answer, given the tokens before it: int64 [answer tokens].

    `prompt` int64 [1, prompt tokens], `answer` int64 [1, answer tokens].
    """
    with torch.inference_mode():
        logits = model(torch.cat([prompt, answer], dim=1)).logits
    return logits[0, prompt.shape[1] - 1 : -1].argmax(-1)


def agreement(
    target: PreTrainedModel, draft: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item]
) -> float:
    """Share of answer tokens on which both models agree, over all items."""
    agreeing = total = 0
    for item in items:
        prompt = tokenizer(render(item.messages), return_tensors="pt")["input_ids"]
        answer = tokenizer(f"{item.answer}{tokenizer.eos_token}", return_tensors="pt")["input_ids"]
        predicted = predict(target, prompt, answer)
        agreeing += int((predicted == predict(draft, prompt, answer)).sum())
        total += len(predicted)
    return agreeing / total


def main() -> None:
    target, tokenizer = load_model(MODELS / "course")
    draft, _ = load_model(MODELS / "draft")
    shares = {
        task: [round(agreement(target, draft, tokenizer, held_out_items(task, ITEMS)), 4)] for task in TASKS
    }
    what = (
        f"Share of answer tokens on which draft and course model agree, {ITEMS} held-out items of each task"
    )
    command = "python -m tools.training.agreement"
    record = Record.measured(
        name="draft-model-agreement", what=what, unit="share", samples=shares, command=command
    )
    print(record)
    record.save()


if __name__ == "__main__":
    main()
