"""The safetensors format, read and laid out by byte position, so that tensors stream through and none is held whole.

Format: 8 bytes little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, data
(https://github.com/huggingface/safetensors, README "Format"). The `safetensors` package itself reads or writes whole
tensors; the tests read every file that is written here with that package.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from engineroom.checkpoint.errors import CheckpointError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
SIZES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
LONGEST_HEADER = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True)
class Stored:
    """One tensor in a file: dtype as safetensors spells it, shape, and its place in bytes from the start."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * SIZES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read_header(path: Path) -> dict[str, Stored]:
    """Names and places of the tensors of a file.

    Raises CheckpointError when the file is cut off, is no safetensors file, or contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_HEADER):
            raise _broken(path, f"its header would be {length:,} bytes long in a file of {size:,}")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            found = {name: _stored(path, 8 + length, entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _broken(path, f"its header does not parse ({error})") from None
    end = 8 + length
    for name, tensor in sorted(found.items(), key=lambda item: item[1].begin):
        if tensor.begin != end:
            raise _broken(path, f"there is a gap or an overlap before '{name}'")
        end += tensor.nbytes
    if end != size:
        raise _broken(path, f"it should have {end:,} bytes and has {size:,}")
    return found


def _stored(path: Path, base: int, entry: dict) -> Stored:
    if entry["dtype"] not in SIZES:
        raise ValueError(f"unknown dtype {entry['dtype']}")
    begin, end = entry["data_offsets"]
    tensor = Stored(path, entry["dtype"], tuple(int(n) for n in entry["shape"]), base + begin)
    if begin < 0 or min(tensor.shape, default=0) < 0 or end - begin != tensor.nbytes:
        raise ValueError(f"{tensor} does not take {end - begin} bytes")
    return tensor


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or no safetensors file: {why}. Expected a complete *.safetensors; fetch or write it again."
    )


def create(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, Stored]:
    """A new file with room for `tensors` (name -> dtype, shape), all zero; the caller fills the places returned.

    Raises OSError (ENOSPC) at once when the disk is too small.
    """
    entries, end = {}, 0
    for name, (dtype, shape) in sorted(tensors.items()):
        begin, end = end, end + prod(shape) * SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
        file.write(len(text).to_bytes(8, "little") + text)
    return {name: _stored(path, 8 + len(text), entry) for name, entry in entries.items()}


def load(stored: Stored) -> torch.Tensor:
    """A tensor of `stored.shape` and its dtype, read from its file.

    Raises CheckpointError for a dtype that is neither F32, F16 nor BF16.
    """
    if stored.dtype not in DTYPES:
        raise CheckpointError(f"{stored.file}: {stored} is quantised; expected one of {', '.join(DTYPES)}.")
    with stored.file.open("rb") as file:
        file.seek(stored.begin)
        raw = bytearray(file.read(stored.nbytes))
    return torch.frombuffer(raw, dtype=DTYPES[stored.dtype]).reshape(stored.shape)
