"""From a description to a model repository: templates filled, configurations parsed as Triton parses them."""

from __future__ import annotations

from pathlib import Path
from string import Template

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from engineroom.kit.output import output_directory
from engineroom.triton.deployment import Deployment

TEMPLATES = Path(__file__).parent / "templates"
CONFIG = "config.pbtxt"


def render(deployment: Deployment, repository: str | Path) -> Path:
    """Write the repository, complete or not at all: <model>/config.pbtxt and what is in <model>/1.

    Raises OutputError when `repository` holds something.
    """
    source = TEMPLATES / deployment.template
    with output_directory(repository, 1 << 20) as folder:
        for template in sorted(source.glob(f"*/{CONFIG}")):
            name = template.parent.name
            text = fill(template.read_text(), deployment)
            parse(text)
            version = folder / name / "1"
            version.mkdir(parents=True)
            (folder / name / CONFIG).write_text(text)
            if deployment.triton_backend == "python" or name != "tensorrt_llm":
                for file in template.parent.glob("1/*.*"):
                    (version / file.name).write_text(fill(file.read_text(), deployment))
    return Path(repository)


def fill(text: str, deployment: Deployment) -> str:
    """Every `${name}` replaced. Raises KeyError for one that a Deployment does not have: a fault of the template."""
    return Template(text).substitute(deployment.variables())


def parse(text: str) -> ModelConfig:
    """A config.pbtxt as Triton reads it. Raises google.protobuf.text_format.ParseError with line and column."""
    return text_format.Parse(text, ModelConfig())
