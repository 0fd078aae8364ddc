"""Strings in Triton's tensors."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from labs.engine.runtime.scheduler import RequestError


def decode(name: str, tensor: NDArray[Any]) -> list[str]:
    """The texts of a TYPE_STRING tensor, which holds bytes. Raises RequestError with the place of a wrong byte."""
    try:
        return [one.decode() if isinstance(one, bytes) else str(one) for one in tensor.flat]
    except UnicodeDecodeError as error:
        raise RequestError(f"{name}: byte {error.start} is not UTF-8 ({error.reason}).") from None
