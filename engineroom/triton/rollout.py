"""Roll out a new engine behind a running Triton without losing a request: a new version replaces the old one.

Triton's explicit model control does the switch (docs/user_guide/model_management.md of the server). The new version is
loaded beside the old one, which needs memory for both. Then new requests go to the new version, and the old one
finishes its requests and is unloaded. As in NVIDIA's repository, `gpt_model_path` in config.pbtxt names the engine.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engineroom.kit.files import write_atomic
from engineroom.kit.output import output_directory
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.render import CONFIG, parse_config, version_numbers
from engineroom.triton.server import Triton

ENGINE_PATH = "gpt_model_path"


def roll_out(
    triton: Triton,
    repository: str | Path,
    model: str = "tensorrt_llm",
    *,
    engine_dir: str | Path,
    timeout: float = 240,
) -> int:
    """Serve `engine_dir` as the next version of `model`. Returns its number when the old version is gone.

    `timeout`: seconds for loading the new version, and again for the last requests of the old one. Raises
    DeploymentError with Triton's reason when the new version cannot be loaded. The repository is then as before, and
    the old version continues to serve.
    """
    folder = Path(repository, model)
    old_versions = version_numbers(folder)
    if not old_versions or not (folder / CONFIG).is_file():
        raise DeploymentError(
            f"{folder} has no version that could be replaced. Give a repository that is served."
        )
    old_config = (folder / CONFIG).read_text()
    new_config = replace_engine(old_config, Path(engine_dir).absolute())
    new_version = old_versions[-1] + 1
    copy_version(folder / str(old_versions[-1]), folder / str(new_version))
    try:
        # The version's folder was written first, so a server that starts now finds a complete model.
        write_atomic(folder / CONFIG, new_config)
        load_version(triton, model, new_version, timeout)
    except BaseException:
        write_atomic(folder / CONFIG, old_config)
        shutil.rmtree(folder / str(new_version))
        raise
    wait_until_drained(triton, model, new_version, timeout)
    for version in old_versions:
        shutil.rmtree(folder / str(version))
    return new_version


def replace_engine(config: str, engine_dir: Path) -> str:
    """The text of config.pbtxt with this engine. Raises DeploymentError for a model without an engine."""
    old_engine_dir = parse_config(config).parameters[ENGINE_PATH].string_value
    if not old_engine_dir:
        raise DeploymentError(f"config.pbtxt has no {ENGINE_PATH}, so it is not the model with the engine.")
    return config.replace(json.dumps(old_engine_dir), json.dumps(str(engine_dir)))


def copy_version(source: Path, target: Path) -> None:
    with output_directory(target, 1 << 20) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


def load_version(triton: Triton, model: str, version: int, timeout: float) -> None:
    with InferenceServerClient(triton.grpc) as client:
        try:
            client.load_model(model, client_timeout=timeout)
        except InferenceServerException as error:
            raise DeploymentError(
                f"version {version} of {model} was not loaded; the version before it continues to serve. "
                f"Triton says: {error.message()}"
            ) from None


def wait_until_drained(triton: Triton, model: str, version: int, timeout: float) -> None:
    """Return when `version` is the only version of the model that Triton has. Raises DeploymentError after `timeout` s.

    Triton 2.51 never unloads a model after a client has cancelled a gRPC stream at the very moment when it ended.
    """
    deadline = time.monotonic() + timeout
    with InferenceServerClient(triton.grpc) as client:
        while True:
            index: Any = client.get_model_repository_index()
            old_versions = [
                entry for entry in index.models if entry.name == model and entry.version != str(version)
            ]
            if all(entry.state == "UNAVAILABLE" for entry in old_versions):
                return
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"version {version} of {model} serves, but the version before it still has running requests, or "
                    f"streams that were cancelled as they ended. Restart the server to end its process."
                )
            time.sleep(0.05)
