"""One model of a repository: its folder, its config.pbtxt, and the lines of that file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from engineroom.triton.render import CONFIG, version_numbers


@dataclass(frozen=True)
class ModelFolder:
    """`text` is config.pbtxt as it is on disk, `config` what Triton reads from it."""

    path: Path
    text: str
    config: ModelConfig

    @property
    def name(self) -> str:
        return self.path.name

    def problem(self, pattern: str, message: str) -> str:
        """`<model>: config.pbtxt:<line>: <message>`; without a line where the file does not match the pattern.

        The last match counts: where a key is given twice, Triton reads the last value.
        """
        matches = list(re.finditer(pattern, self.text))
        line = f":{self.text.count(chr(10), 0, matches[-1].start()) + 1}" if matches else ""
        return f"{self.name}: {CONFIG}{line}: {message}"

    def parameter(self, key: str) -> str:
        """The value of a parameter; empty where there is none."""
        return self.config.parameters[key].string_value if key in self.config.parameters else ""

    def served_versions(self) -> list[int]:
        """The versions that Triton loads: those of the version policy, by default the last one."""
        versions, policy = version_numbers(self.path), self.config.version_policy
        if policy.HasField("all"):
            return versions
        if policy.HasField("specific"):
            return [version for version in versions if version in policy.specific.versions]
        num_versions = policy.latest.num_versions if policy.HasField("latest") else 1
        return versions[-num_versions:] if num_versions else []


def parameter_pattern(key: str) -> str:
    """Matches the line of a parameter in config.pbtxt."""
    return rf'key:\s*"{re.escape(key)}"'


def tensor_pattern(name: str) -> str:
    """Matches the line of a tensor in config.pbtxt."""
    return rf'name:\s*"{re.escape(name)}"'


def enum_name(enum: Any, number: int) -> str:
    """The name of a protobuf enum's value; the number itself where it has no name, which protobuf's parser accepts."""
    return enum.Name(number) if number in enum.values() else str(number)
