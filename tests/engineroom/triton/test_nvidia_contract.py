"""The templates against NVIDIA's own repository of tensorrtllm_backend v0.19.0: every tensor, its type, dims and need.

nvidia_contract.json has the facts of its config.pbtxt files. The templates have the names that came with pull request
749 of May 2025, which the images from r25.05 to r26.07 have; RENAMED and ADDED are that difference.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from engineroom.engine.directory import EngineDir
from engineroom.triton.deployment import describe
from engineroom.triton.lint import lint
from engineroom.triton.render import parse_config, render
from tests.engineroom.triton.lint_configs import PROGRAM

CONTRACT: dict[str, Any] = json.loads((Path(__file__).parent / "nvidia_contract.json").read_text())
RENAMED: dict[str, str] = {"min_length": "min_tokens", "random_seed": "seed"}
ADDED_INPUTS = {"return_num_input_tokens", "return_num_output_tokens"}
ADDED_OUTPUTS = {"num_input_tokens", "num_output_tokens"}
IMAGES = {  # this engine has no vision models
    "preprocessing": {
        "IMAGE_BYTES", "IMAGE_URL", "VIDEO_BYTES", "PIXEL_VALUES", "ASPECT_RATIO_IDS", "ASPECT_RATIO_MASK",
        "CROSS_ATTENTION_MASK", "IMAGE_SIZES", "IS_VIDEO_INPUT", "ATTENTION_MASK", "IMAGE_GRID_THW", "VISION_INPUT_ID",
    },
    "tensorrt_llm_bls": {"image_input", "image_bytes_input", "image_url_input", "video_bytes_input"},
}  # fmt: skip
Tensors = dict[str, tuple[str, list[int], bool]]


def published(model: str, kind: str) -> Tensors:
    rows: list[tuple[str, str, list[int], bool]] = CONTRACT["models"][model][kind]
    images = IMAGES.get(model, set())
    return {
        RENAMED.get(name, name): (data_type, dims, optional)
        for name, data_type, dims, optional in rows
        if name not in images
    }


def ours(config: ModelConfig, kind: str) -> Tensors:
    tensors = config.input if kind == "input" else config.output
    return {
        tensor.name: (
            DataType.Name(tensor.data_type),
            list(tensor.dims),
            kind == "input" and tensor.optional,
        )
        for tensor in tensors
    }


@pytest.fixture
def repository(engine: EngineDir, tmp_path: Path) -> Path:
    return render(describe(engine_dir=engine.path), tmp_path / "repository")


def config_of(repository: Path, model: str) -> ModelConfig:
    return parse_config((repository / model / "config.pbtxt").read_text())


@pytest.mark.parametrize("kind", ["input", "output"])
@pytest.mark.parametrize("model", CONTRACT["models"])
def test_the_templates_have_nvidia_s_tensors(repository: Path, model: str, kind: str) -> None:
    expected, actual = published(model, kind), ours(config_of(repository, model), kind)
    added = ADDED_INPUTS if kind == "input" else ADDED_OUTPUTS
    has_counts = model in ("ensemble", "tensorrt_llm", "tensorrt_llm_bls")
    assert actual.keys() - expected.keys() == (added if has_counts else set())
    assert {name: actual.get(name) for name in expected} == expected


def test_nvidia_s_preprocessing_and_postprocessing_fit_the_ensemble(repository: Path) -> None:
    """With the tensors of NVIDIA's models, images included, the check finds nothing."""
    for model in ("preprocessing", "postprocessing"):
        lines = [f'name: "{model}" backend: "python" max_batch_size: 64 instance_group {{ kind: KIND_CPU }}']
        for kind in ("input", "output"):
            for name, data_type, dims, optional in CONTRACT["models"][model][kind]:
                need = "optional: true" if optional else ""
                lines.append(f'{kind} {{ name: "{name}" data_type: {data_type} dims: {dims} {need} }}')
        lines.append('parameters { key: "multimodal_model_path" value { string_value: "${multimodal}" } }')
        (repository / model / "config.pbtxt").write_text("\n".join(lines))
        (repository / model / "1" / "model.py").write_text(PROGRAM)
    assert lint(repository) == []


def test_the_ensemble_passes_postprocessing_what_nvidia_s_reads(repository: Path) -> None:
    """NVIDIA's postprocessing raises ValueError for any other input."""
    step = config_of(repository, "ensemble").ensemble_scheduling.step[-1]
    assert {*step.input_map} == {"TOKENS_BATCH", "SEQUENCE_LENGTH"}
