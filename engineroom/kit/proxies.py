"""Proxies of the environment: never for this machine itself."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")
NO_PROXY = ("no_proxy", "NO_PROXY")
NO_GRPC_PROXY = "no_grpc_proxy"  # gRPC reads it instead of no_proxy when it is set


def exempt_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add the names of this machine to the variables that exempt hosts from proxies.

    Every client heeds one of them: httpx, requests, urllib, aiohttp, curl and gRPC, also inside other libraries.
    """
    variables = (*NO_PROXY, NO_GRPC_PROXY)
    exempt = [host.strip() for name in variables for host in environment.get(name, "").split(",")]
    hosts = ",".join(dict.fromkeys([*filter(None, exempt), *LOOPBACK]))
    for name in variables:
        if name in environment or name != NO_GRPC_PROXY:
            environment[name] = "*" if "*" in exempt else hosts


def drop_socks(environment: MutableMapping[str, str]) -> None:
    """Remove SOCKS proxies where the package socksio is missing: httpx could not create any client."""
    if importlib.util.find_spec("socksio"):
        return
    for name in list(environment):
        if name.lower().endswith("_proxy") and environment[name].lower().startswith("socks"):
            del environment[name]
