"""Count what a function does to tensors: values that it reads into Python, values that it writes, operators it calls.

On a GPU, a value read into Python makes the host wait for the device, and an operator is a kernel launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# methods by which many values leave a tensor for Python or NumPy; single ones leave it by aten::_local_scalar_dense
READS: frozenset[object] = frozenset(
    getattr(Tensor, name)
    for name in ("tolist", "numpy", "__array__", "__dlpack__", "data_ptr", "untyped_storage")
)
READ_ONE = torch.ops.aten._local_scalar_dense.default


@dataclass
class Touched:
    """What a block of code did: `values_read` into Python, `values_written` to new or old tensors, `operators`."""

    values_read: int = 0
    values_written: int = 0
    operators: int = 0

    def __enter__(self) -> Touched:
        self._modes = (_Reads(self), _Writes(self))
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Reads(TorchFunctionMode):
    def __init__(self, touched: Touched) -> None:
        super().__init__()
        self.touched = touched

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in READS and args and isinstance(args[0], Tensor):
            self.touched.values_read += args[0].numel()
        return func(*args, **(kwargs or {}))


class _Writes(TorchDispatchMode):
    def __init__(self, touched: Touched) -> None:
        super().__init__()
        self.touched = touched

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is READ_ONE:
            self.touched.values_read += 1
        elif not _is_view(func):
            self.touched.operators += 1
            written = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            self.touched.values_written += sum(tensor.numel() for tensor in written)
        return output


def _is_view(operator: Any) -> bool:
    """An operator that returns the memory of an argument and writes nothing."""
    returned = [value.alias_info for value in operator._schema.returns]
    return bool(returned) and all(alias is not None and not alias.is_write for alias in returned)
