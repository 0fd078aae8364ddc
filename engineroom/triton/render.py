"""Render a model repository from a Deployment: fill the templates, and parse each config.pbtxt as Triton does."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engineroom.kit.output import output_directory
from engineroom.triton.deployment import Deployment

TEMPLATES = Path(__file__).parent / "templates"
CONFIG = "config.pbtxt"


def render(deployment: Deployment, repository: str | Path) -> Path:
    """Write the repository, complete or not at all: <model>/config.pbtxt and the files in <model>/1.

    Raises OutputError when `repository` is not empty.
    """
    source = TEMPLATES / deployment.template
    with output_directory(repository, 1 << 20) as folder:
        for template in sorted(source.glob(f"*/{CONFIG}")):
            name = template.parent.name
            text = fill(template.read_text(), deployment)
            parse_config(text)
            version = folder / name / "1"
            version.mkdir(parents=True)
            (folder / name / CONFIG).write_text(text)
            # NVIDIA's backend runs the engine itself: the model that holds the engine needs no program.
            if deployment.triton_backend == "python" or name != "tensorrt_llm":
                for path in template.parent.glob("1/*.*"):
                    (version / path.name).write_text(fill(path.read_text(), deployment))
    return Path(repository)


def fill(text: str, deployment: Deployment) -> str:
    """The text with each `${name}` replaced. Raises KeyError for a name that is not a field of Deployment."""
    return Template(text).substitute(deployment.variables())


def parse_config(text: str) -> ModelConfig:
    """A config.pbtxt as Triton reads it. Raises google.protobuf.text_format.ParseError with line and column."""
    return text_format.Parse(text, ModelConfig())


def version_numbers(folder: Path) -> list[int]:
    """The numbers of a model's version folders, in ascending order; like Triton, without those written as 01."""
    names = [
        path.name for path in folder.glob("*") if path.is_dir() and re.fullmatch("0|[1-9][0-9]*", path.name)
    ]
    return sorted(map(int, names))
