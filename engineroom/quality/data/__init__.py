"""The training and test data of the course model, generated from code, the glossary and a word list.

Every item belongs to one split by a hash of its content, so a test item cannot occur in training.
"""

from __future__ import annotations

from engineroom.quality.data.item import Chat, Item, Split
from engineroom.quality.data.mix import TASKS, held_out_items, training_items

__all__ = ["TASKS", "Chat", "Item", "Split", "held_out_items", "training_items"]
