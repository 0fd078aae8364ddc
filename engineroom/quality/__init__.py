"""Answer quality: held-out questions, exact match by task and perplexity, the same for every engine."""

from __future__ import annotations

from pathlib import Path

from engineroom.quality.data import TASKS, Item, held_out_items
from engineroom.quality.local import held_out_texts, load_model, local_generate, perplexity
from engineroom.quality.score import Generate, Scores, TaskScore, score

__all__ = ["Generate", "Scores", "TaskScore", "evaluate_folder", "held_out", "perplexity", "score"]

ITEMS_PER_TASK = 200
PASS_SHARE = 0.95  # share of each task's items that a model must answer exactly to pass
PERPLEXITY_TASKS = ("glossary", "off-topic", "system turn")


def held_out(count: int = ITEMS_PER_TASK, seed: int = 0) -> list[Item]:
    """`count` held-out items of each task; the same arguments give the same items."""
    return [item for task in TASKS for item in held_out_items(task, count, seed)]


def evaluate_folder(folder: Path, count: int = ITEMS_PER_TASK, device: str = "cpu") -> Scores:
    """The scores of a Hugging Face folder that transformers runs on `device`, "cpu" or "cuda".

    Perplexity is measured on the held-out items of PERPLEXITY_TASKS. Raises ModelFolderError.
    """
    model, tokenizer = load_model(folder, device)
    items = held_out(count)
    scores = score(local_generate(model, tokenizer, batch_size=16 if device == "cpu" else 256), items)
    texts = held_out_texts([item for item in items if item.task in PERPLEXITY_TASKS])
    return scores.model_copy(update={"perplexity": perplexity(model, tokenizer, texts)})
