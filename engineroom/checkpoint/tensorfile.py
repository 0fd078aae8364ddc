"""The safetensors format, read and written by byte offset, so that a conversion never holds a whole tensor.

Format: 8 bytes little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, data
(https://github.com/huggingface/safetensors, README "Format"). The `safetensors` package reads and writes whole tensors
only; the tests read every file that is written here with that package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from engineroom.checkpoint.errors import CheckpointError

TORCH_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2}
DTYPE_BYTES |= {"U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
GIT_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
COMPARED_BYTES = 2**20
MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file: its dtype as safetensors spells it, its shape, and the byte offset of its data."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, by name.

    Raises CheckpointError when the file is truncated, inconsistent, or not a safetensors file.
    """
    text, file_bytes = _read_header_text(path)
    header_bytes = len(text)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {name: _stored_tensor(path, 8 + header_bytes, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"its header does not parse ({error})") from None
    end = 8 + header_bytes
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].offset):
        if tensor.offset != end:
            raise _damaged(path, f"there is a gap or an overlap before '{name}'")
        end += tensor.nbytes
    if end != file_bytes:
        raise _damaged(path, f"it should have {end:,} bytes and has {file_bytes:,}")
    return tensors


def _read_header_text(path: Path) -> tuple[bytes, int]:
    """(the JSON header as it stands, the bytes of the whole file)."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            first_bytes = file.read(len(GIT_LFS_POINTER))
            if first_bytes == GIT_LFS_POINTER:
                raise git_lfs_error(path)
            header_bytes = int.from_bytes(first_bytes[:8], "little")
            if file_bytes < 8 or header_bytes > min(file_bytes - 8, MAX_HEADER_BYTES):
                raise _damaged(
                    path, f"its header would be {header_bytes:,} bytes long in a file of {file_bytes:,}"
                )
            file.seek(8)
            return file.read(header_bytes), file_bytes
    except OSError as error:
        raise CheckpointError(
            f"{path} is unreadable ({error.strerror}). Give yourself the right to read it."
        ) from None


def git_lfs_error(path: Path) -> CheckpointError:
    """The error for a file that Git LFS left as a pointer to the real one."""
    return CheckpointError(
        f"{path} is a Git LFS pointer: the repository was cloned without its large files. Run `git lfs install` and "
        f"`git lfs pull` in the folder, or fetch the model with `hf download`."
    )


def _stored_tensor(path: Path, data_offset: int, entry: Mapping[str, Any]) -> StoredTensor:
    """The tensor that an entry of the header describes; the data begins at byte `data_offset` of the file."""
    if entry["dtype"] not in DTYPE_BYTES:
        raise ValueError(f"unknown dtype {entry['dtype']}")
    begin, end = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    tensor = StoredTensor(path, entry["dtype"], shape, data_offset + begin)
    if begin < 0 or min(shape, default=0) < 0 or end - begin != tensor.nbytes:
        raise ValueError(f"{tensor} does not take {end - begin} bytes")
    return tensor


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged or not a safetensors file: {reason}. Expected a complete *.safetensors; fetch or write it "
        f"again."
    )


def create(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, StoredTensor]:
    """Write a new file for `tensors` (name -> dtype, shape). All values are zero until the caller overwrites them.

    Raises OSError (ENOSPC) when the disk is too small, and FileExistsError when `path` exists.
    """
    header: dict[str, dict[str, Any]] = {}
    end = 0
    for name, (dtype, shape) in sorted(tensors.items()):
        begin, end = end, end + prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
        file.write(len(text).to_bytes(8, "little") + text)
    return {name: _stored_tensor(path, 8 + len(text), entry) for name, entry in header.items()}


def load(tensor: StoredTensor) -> torch.Tensor:
    """The values of a tensor, with its shape and dtype, read from its file.

    Raises CheckpointError for a dtype that is neither F32, F16 nor BF16.
    """
    if tensor.dtype not in TORCH_DTYPES:
        raise CheckpointError(
            f"{tensor.file}: {tensor} is quantised; expected one of {', '.join(TORCH_DTYPES)}."
        )
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        raw = bytearray(file.read(tensor.nbytes))
    return torch.frombuffer(raw, dtype=TORCH_DTYPES[tensor.dtype]).reshape(tensor.shape)


def equal_bytes(first: StoredTensor, second: StoredTensor) -> bool:
    """Whether two tensors have the same dtype, shape and bytes; they are compared block by block."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    with first.file.open("rb") as first_file, second.file.open("rb") as second_file:
        first_file.seek(first.offset)
        second_file.seek(second.offset)
        for begin in range(0, first.nbytes, COMPARED_BYTES):
            size = min(COMPARED_BYTES, first.nbytes - begin)
            if first_file.read(size) != second_file.read(size):
                return False
    return True
