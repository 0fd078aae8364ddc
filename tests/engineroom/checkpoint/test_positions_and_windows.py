"""Rotary embeddings, windows and activations: the conversion computes what transformers computes, or refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engineroom.checkpoint import (
    CheckpointError,
    open_model,
)
from tests.engineroom.checkpoint.saved_models import (
    ABSENT,
    MODEL_TYPES,
    assert_same,
    change_config,
    write,
)

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS: list[Any] = [
    ABSENT,
    None,
    {},
    {"type": "default"},
    {"rope_type": "default", "rope_theta": 3e5},
    {"type": "default", "factor": 2.0},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
    {"rope_type": "linear", "type": "default", "factor": 4.0},
    {"rope_type": "default", "type": "linear", "factor": 4.0},
    {"rope_type": "llama3", "original_max_position_embeddings": 16, **LLAMA3},
    {"rope_type": "llama3", **LLAMA3},
    {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 1.0},
    {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5},
    {"rope_type": "yarn", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
]
REFUSED_SCALINGS = SCALINGS[-3:]
THETAS = [ABSENT, 1e4, 7e5]
ORIGINALS = [ABSENT, 64]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("llama") / "hf")


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    scaling=st.sampled_from(SCALINGS),
    parameters=st.sampled_from(SCALINGS),
    theta=st.sampled_from(THETAS),
    original=st.sampled_from(ORIGINALS),
)
def test_rope(
    llama: Path,
    tmp_path_factory: pytest.TempPathFactory,
    scaling: Any,
    parameters: Any,
    theta: Any,
    original: Any,
) -> None:
    config = {"rope_scaling": scaling, "rope_parameters": parameters, "rope_theta": theta}
    change_config(llama, **config, original_max_position_embeddings=original)
    counted = scaling if isinstance(scaling, dict) and scaling else parameters
    if any(counted is refused for refused in REFUSED_SCALINGS):
        with pytest.raises(CheckpointError, match=r"yarn|dynamic|partial_rotary_factor"):
            open_model(llama)
    else:
        assert_same(llama, tmp_path_factory.mktemp("rope") / "out")


@pytest.mark.parametrize("scaling", SCALINGS[:-4])
@pytest.mark.parametrize("theta", THETAS)
def test_rope_of_files_of_transformers_4(llama: Path, tmp_path: Path, scaling: Any, theta: Any) -> None:
    change_config(
        llama,
        rope_scaling=scaling,
        rope_parameters=ABSENT,
        rope_theta=theta,
        original_max_position_embeddings=ABSENT,
    )
    assert_same(llama, tmp_path / "out")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name) / "hf", name) for name in MODEL_TYPES}


WINDOWS = [ABSENT, None, 4, 127, 128, 4096]
LAYERS = [ABSENT, None, ["full_attention"] * 2, ["full_attention", "sliding_attention"], ["full_attention"]]


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    model_type=st.sampled_from(MODEL_TYPES),
    window=st.sampled_from(WINDOWS),
    switch=st.sampled_from([ABSENT, True, False]),
    first=st.sampled_from([ABSENT, 0, 1, 2]),
    layer_types=st.sampled_from(LAYERS),
)
def test_sliding_windows(
    families: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    model_type: str,
    window: Any,
    switch: Any,
    first: Any,
    layer_types: Any,
) -> None:
    """What the conversion accepts equals transformers; a window that no sequence reaches is accepted."""
    folder = families[model_type]
    keys = {"sliding_window": window, "use_sliding_window": switch, "max_window_layers": first}
    change_config(folder, **keys, layer_types=layer_types)
    try:
        open_model(folder)
    except CheckpointError as error:
        assert "'sliding_window'" in str(error) or "'layer_types'" in str(error)
        assert window in (4, 127) or layer_types not in (ABSENT, None)
    else:
        if model_type == "mistral" and layer_types is None:
            change_config(
                folder, layer_types=ABSENT
            )  # with the key, even null, transformers loads a Ministral
        assert_same(folder, tmp_path_factory.mktemp("window") / "out")


@pytest.mark.parametrize("activation", ["silu", "swish", "gelu", "gelu_pytorch_tanh", "relu", None, ABSENT])
def test_activations(tmp_path: Path, activation: Any) -> None:
    folder = write(tmp_path / "hf")
    change_config(folder, hidden_act=activation)
    if activation in ("silu", "swish", ABSENT):
        assert_same(folder, tmp_path / "out")
    else:
        with pytest.raises(CheckpointError, match=f"'hidden_act' is {activation!r}.*'silu' or 'swish'"):
            open_model(folder)
