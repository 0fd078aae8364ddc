"""LiteLLM's proxy before Triton and vLLM: deploy/gateway/litellm.yaml, started on this machine."""

from __future__ import annotations

from pathlib import Path

from engineroom.kit.process import HOST, Server, start
from engineroom.triton.deployment import DeploymentError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "gateway" / "litellm.yaml"
LITELLM = ROOT / ".venv" / "gateway" / "bin" / "litellm"
LISTS = ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS", "BLOG_POSTS")
OFFLINE = {f"LITELLM_LOCAL_{name}": "True" for name in LISTS}  # as packaged; else each is fetched from GitHub


def serve_gateway(
    engine: str,
    vllm: str,
    *,
    key: str,
    engine_key: str = "none",
    vllm_key: str = "none",
    timeout: float = 120,
) -> Server:
    """Start the gateway on a free loopback port: `course-stable` is `engine`, `course-new` is `vllm`.

    Both are addresses of OpenAI servers without `/v1`, each with the API key that it wants; `key` is what clients send.
    Raises DeploymentError without LiteLLM, ServerFailed with the reason and the end of the log.
    """
    if not LITELLM.exists():
        raise DeploymentError("There is no LiteLLM here. `python3 bootstrap.py --gateway` brings it.")
    keys = {"LITELLM_MASTER_KEY": key, "ENGINE_API_KEY": engine_key, "VLLM_API_KEY": vllm_key}
    bases = {"ENGINE_API_BASE": f"{engine}/v1", "VLLM_API_BASE": f"{vllm}/v1"}
    line = [LITELLM, "--config", CONFIG, "--host", HOST, "--port", "{port}"]
    return start(
        line, name="gateway", env=OFFLINE | keys | bases, ready="/health/liveliness", timeout=timeout
    )
