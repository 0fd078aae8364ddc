"""The one place that creates HTTP clients: none goes through a proxy to a server on this machine.

gRPC's clients, and those inside other libraries, heed the environment (proxies.py).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx


def is_loopback(url: str) -> bool:
    """Return True when the URL, or host:port, names this machine by "localhost" or a loopback address."""
    host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def http_client(url: str, **settings: Any) -> httpx.Client:
    """Return a client whose base URL is `url`; `settings` are those of httpx.Client."""
    import httpx  # slow to import

    return httpx.Client(base_url=url, **_settings(url, settings))


def async_http_client(url: str, **settings: Any) -> httpx.AsyncClient:
    """Return a client whose base URL is `url`; `settings` are those of httpx.AsyncClient."""
    import httpx

    return httpx.AsyncClient(base_url=url, **_settings(url, settings))


def http_get(url: str, timeout: float) -> httpx.Response:
    """Return the answer to one GET. `timeout` is in seconds. Raises httpx.HTTPError."""
    with http_client(url, timeout=timeout) as client:
        return client.get(url)


def _settings(url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """On loopback the environment's proxies do not count, and no certificates are loaded, which is slow."""
    if not is_loopback(url):
        return settings
    plain = {} if urlsplit(url).scheme == "https" else {"verify": False}
    return {"trust_env": False, **plain, **settings}
