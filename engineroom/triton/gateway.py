"""LiteLLM's proxy in front of Triton and vLLM: deploy/gateway/litellm.yaml, started on this machine."""

from __future__ import annotations

from pathlib import Path

from engineroom.kit.process import HOST, Server, start
from engineroom.triton.deployment import DeploymentError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "gateway" / "litellm.yaml"
LITELLM = ROOT / ".venv" / "gateway" / "bin" / "litellm"
# LiteLLM uses the lists that it was packaged with; by default it would fetch each of them from GitHub.
LISTS = ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS", "BLOG_POSTS")
OFFLINE = {f"LITELLM_LOCAL_{name}": "True" for name in LISTS}


def serve_gateway(
    engine: str,
    vllm: str,
    *,
    key: str,
    engine_key: str = "none",
    vllm_key: str = "none",
    timeout: float = 120,
) -> Server:
    """Start the gateway on a free loopback port: the model `course-stable` is `engine`, `course-new` is `vllm`.

    `engine` and `vllm` are addresses of OpenAI servers, without `/v1`; `engine_key` and `vllm_key` are their API keys.
    `key` is the key that clients send to the gateway. Raises DeploymentError where LiteLLM is not installed, and
    ServerFailed with the reason and the end of the log.
    """
    if not LITELLM.exists():
        raise DeploymentError("LiteLLM is not installed. Install it with `python3 bootstrap.py --gateway`.")
    keys = {"LITELLM_MASTER_KEY": key, "ENGINE_API_KEY": engine_key, "VLLM_API_KEY": vllm_key}
    bases = {"ENGINE_API_BASE": f"{engine}/v1", "VLLM_API_BASE": f"{vllm}/v1"}
    command = [LITELLM, "--config", CONFIG, "--host", HOST, "--port", "{port}"]
    environment = OFFLINE | keys | bases
    return start(command, name="gateway", env=environment, ready="/health/liveliness", timeout=timeout)
