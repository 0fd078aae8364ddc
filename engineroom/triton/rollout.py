"""A new engine behind a running Triton, with no request lost: a new version of the model takes over from the old.

Triton's explicit model control does the switch (docs/user_guide/model_management.md of the server): the new version is
loaded beside the old one, which needs room for both; then new requests go to it, the old version answers what it has
and is unloaded. The engine is named as NVIDIA has it, by `gpt_model_path` in config.pbtxt.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from engineroom.kit.output import output_directory
from engineroom.triton.deployment import DeploymentError
from engineroom.triton.render import CONFIG, parse
from engineroom.triton.server import Triton

ENGINE = "gpt_model_path"


def roll_out(
    triton: Triton,
    repository: str | Path,
    model: str = "tensorrt_llm",
    *,
    engine_dir: str | Path,
    timeout: float = 240,
) -> int:
    """Serve `engine_dir` as the next version of `model`; its number, once the old version has ended.

    `timeout`: seconds to load the new version, and again for the old one's last answers. Raises DeploymentError with
    Triton's reason when the new version cannot be loaded; the old one serves on then, the repository is as before.
    """
    folder = Path(repository, model)
    old = versions(folder)
    if not old or not (folder / CONFIG).is_file():
        raise DeploymentError(f"{folder} has no version to take over from. Give a repository that is served.")
    config = (folder / CONFIG).read_text()
    changed, new = name_engine(config, Path(engine_dir).absolute()), old[-1] + 1
    with output_directory(folder / str(new), 1 << 20) as fresh:
        shutil.copytree(
            folder / str(old[-1]), fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    try:
        # after the folder: a server that starts between the two has a whole model
        write(folder / CONFIG, changed)
        load(triton, model, new, timeout)
    except BaseException:
        write(folder / CONFIG, config)
        shutil.rmtree(folder / str(new))
        raise
    drained(triton, model, new, timeout)
    for number in old:
        shutil.rmtree(folder / str(number))
    return new


def versions(folder: Path) -> list[int]:
    """The numbers of a model's version folders, rising; Triton serves the last."""
    return sorted(int(path.name) for path in folder.glob("[1-9]*") if path.name.isdigit())


def name_engine(config: str, engine_dir: Path) -> str:
    """The text of config.pbtxt with this engine. Raises DeploymentError for a model that names none."""
    named = parse(config).parameters
    if not named[ENGINE].string_value:
        raise DeploymentError(f"config.pbtxt has no {ENGINE}, so it is not the model with the engine.")
    return config.replace(json.dumps(named[ENGINE].string_value), json.dumps(str(engine_dir)))


def write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def load(triton: Triton, model: str, version: int, timeout: float) -> None:
    with InferenceServerClient(triton.grpc) as client:
        try:
            client.load_model(model, client_timeout=timeout)
        except InferenceServerException as error:
            raise DeploymentError(
                f"version {version} of {model} was not loaded, the version before it serves on. "
                f"Triton says: {error.message()}"
            ) from None


def drained(triton: Triton, model: str, version: int, timeout: float) -> None:
    """Return when `version` is the only one that Triton has.

    Triton 2.51 never unloads a model of which a client cancelled a gRPC stream in the moment when it ended.
    """
    end = time.monotonic() + timeout
    with InferenceServerClient(triton.grpc) as client:
        while True:
            states = client.get_model_repository_index().models
            others = [one for one in states if one.name == model and one.version != str(version)]
            if not [one for one in others if one.state != "UNAVAILABLE"]:
                return
            if time.monotonic() > end:
                raise DeploymentError(
                    f"version {version} of {model} serves; the one before it still has answers in the making, or "
                    f"streams that were cut off as they ended. Its process goes when the server is started again."
                )
            time.sleep(0.05)
