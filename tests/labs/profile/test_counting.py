"""What is counted: every way in which values leave a tensor, every operator, no view."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from labs.profile.counting import Touched

READS: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "tolist": (lambda row: row.tolist(), 12),
    "numpy": (lambda row: row.numpy(), 12),
    "np.asarray": (np.asarray, 12),
    "np.from_dlpack": (np.from_dlpack, 12),
    "a comprehension": (lambda row: [float(value) for value in row.flatten()], 12),
    "max": (lambda row: max(row.flatten(), key=float), 12),
    "item": (lambda row: row.max().item(), 1),
    "int": (lambda row: int(row.argmax()), 1),
    "an index": (lambda row: [*range(20)][row.argmax()], 1),
    "an if": (lambda row: 1 if row.max() > 3 else 0, 1),
    "argmax": (lambda row: row.argmax(), 0),
}
OPERATORS: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "views": (lambda x: x.view(-1)[:6].reshape(2, 3).T[None].transpose(0, 1)[1:].detach(), 0),
    "contiguous, as it is": (lambda x: x.contiguous(), 0),
    "contiguous, transposed": (lambda x: x.T.contiguous(), 1),
    "in place": (lambda x: x.add_(1).mul_(2), 2),
    "several results": (lambda x: x.sort(), 1),
    "out of place": (lambda x: (x + 1) * 2, 2),
}


@pytest.mark.parametrize("name", READS)
def test_values_that_leave_a_tensor(name: str) -> None:
    read, expected = READS[name]
    row = torch.arange(12.0).reshape(3, 4)
    with Touched() as touched:
        read(row)
    assert touched.values_read == expected


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    compute, expected = OPERATORS[name]
    with Touched() as touched:
        compute(torch.ones(3, 4))
    assert touched.operators == expected + 1  # torch.ones


def test_values_written_are_those_of_new_and_of_changed_tensors() -> None:
    x = torch.ones(3, 4)
    with Touched() as touched:
        x.T.contiguous()
        x.add_(1)
        x.view(-1)[:5].clone()
    assert touched.values_written == 12 + 12 + 5


def test_one_counter_over_several_blocks_and_nothing_outside() -> None:
    touched = Touched()
    for _ in range(3):
        with touched:
            torch.zeros(2)
        torch.ones(5).tolist()
    assert (touched.operators, touched.values_written, touched.values_read) == (3, 6, 0)


def test_counting_ends_with_an_exception() -> None:
    touched = Touched()
    with pytest.raises(ZeroDivisionError), touched:
        raise ZeroDivisionError
    torch.ones(3).tolist()
    assert (touched.operators, touched.values_read) == (0, 0)
