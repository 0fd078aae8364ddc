"""Every client reaches a server on this machine beside proxies that do not answer, and NO_PROXY is not set."""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import grpc
import httpx
import openai
import pytest
from tritonclient.grpc import InferenceServerClient, aio

from engineroom.kit import network
from engineroom.kit.environment import child_environment
from engineroom.kit.proxies import NO_GRPC_PROXY, exempt_loopback
from engineroom.metrics.prometheus import scrape
from engineroom.quality.http import http_generate
from engineroom.triton.client import TritonBackend

aiohttp, requests = map(import_module, ("aiohttp", "requests"))  # vLLM and its benchmark use them
service_pb2 = import_module("tritonclient.grpc.service_pb2")  # generated code, which has no types
service_pb2_grpc = import_module("tritonclient.grpc.service_pb2_grpc")

ROOT = Path(__file__).parents[3]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ws_proxy")
ANSWER = b"""{"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}],
"choices": [{"message": {"content": "yes"}}]}"""


class Handler(BaseHTTPRequestHandler):
    """Answers like an OpenAI server, and with a page of metrics."""

    def do_GET(self) -> None:
        page = b"vllm:up 1\n" if self.path == "/metrics" else ANSWER
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


class Live(service_pb2_grpc.GRPCInferenceServiceServicer):
    def ServerLive(self, request: object, context: object) -> object:
        return service_pb2.ServerLiveResponse(live=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def grpc_address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Live(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture(autouse=True)
def dead_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for name in PROXIES:
            monkeypatch.setenv(name, address)
            monkeypatch.setenv(name.upper(), address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        yield address


def chat(url: str) -> object:
    return http_generate(url)([[{"role": "user", "content": "?"}]])


async def fetch_with_aiohttp(url: str) -> int:
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as response:
        return response.status


async def list_models(url: str) -> object:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        return await client.models.list()


async def ask_live(address: str) -> bool | None:
    async with aio.InferenceServerClient(address) as client:
        return await client.is_server_live()


OURS: dict[str, Callable[[str], object]] = {
    "http_client": lambda url: network.http_client(url).get("/").raise_for_status(),
    "http_get": lambda url: network.http_get(url, timeout=5).raise_for_status(),
    "quality": chat,
    "metrics": lambda url: scrape(f"{url}/metrics"),
}
OTHERS: dict[str, Callable[[str], object]] = {
    "openai": lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0).models.list(),
    "openai, asynchronous": lambda url: asyncio.run(list_models(url)),
    "httpx": lambda url: httpx.get(url).raise_for_status(),
    "requests": lambda url: requests.get(url, timeout=5).raise_for_status(),
    "urllib": lambda url: urllib.request.urlopen(url, timeout=5).read(),  # noqa: S310
    "aiohttp": lambda url: asyncio.run(fetch_with_aiohttp(url)),
}


@pytest.mark.parametrize("name", OURS)
def test_our_clients_use_no_proxy_for_this_machine(
    name: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not need the exemption in the environment, nor a library for SOCKS."""
    for variable in PROXIES:
        monkeypatch.setenv(variable, "socks5://127.0.0.1:9")
    OURS[name](url)


@pytest.mark.parametrize("name", OTHERS)
def test_clients_of_other_libraries(name: str, url: str) -> None:
    with pytest.raises(Exception):  # noqa: B017  # each library has its own error
        OTHERS[name](url)
    exempt_loopback()
    OTHERS[name](url)


def test_the_clients_of_grpc(grpc_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC's own list of exceptions, where it is set, takes the place of the general one."""
    monkeypatch.setenv(NO_GRPC_PROXY, "example.org")
    exempt_loopback()
    assert asyncio.run(ask_live(grpc_address))
    with InferenceServerClient(grpc_address) as client:
        assert client.is_server_live()


def test_the_front_door_of_triton_asks_it_directly(url: str) -> None:
    assert TritonBackend("127.0.0.1:1", url, f"{url}/metrics").problem() is None


IMPORT = "import engineroom.kit, os, sys; print(os.environ['no_proxy'], os.environ['NO_PROXY'])"


@pytest.mark.parametrize(
    ("before", "after"),
    [("", "localhost,127.0.0.1,::1"), ("a.b, .c", "a.b,.c,localhost,127.0.0.1,::1"), ("*", "*")],
)
def test_importing_the_library_exempts_this_machine(before: str, after: str) -> None:
    environment = {**os.environ, "no_proxy": before, "NO_PROXY": before}
    command = [sys.executable, "-c", IMPORT]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.split() == [after, after]


def test_a_program_that_we_start_reaches_this_machine(url: str) -> None:
    command = [shutil.which("curl") or sys.executable]
    code = f"import urllib.request; urllib.request.urlopen({url!r}, timeout=5)"
    command += ["-sf", url] if command[0].endswith("curl") else ["-c", code]
    subprocess.run(command, env=child_environment(), check=True, capture_output=True)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("https://localhost", True),
        ("[::1]:8001", True),
        ("127.9.9.9:80", True),
        ("http://0.0.0.0:8000", True),
        ("http://192.168.0.1", False),
        ("https://localhost.example.org", False),
        ("https://api.example.org/v1", False),
    ],
)
def test_what_counts_as_this_machine(address: str, local: bool) -> None:
    assert network.is_loopback(address) is local


def test_a_remote_server_is_reached_through_the_proxy(dead_proxies: str) -> None:
    with network.http_client("http://api.example.org") as client:
        assert client.trust_env and urllib.request.getproxies()["http"] == dead_proxies
        with pytest.raises(
            httpx.ConnectError, match="refused"
        ):  # the proxy; the name itself cannot be looked up
            client.get("/")


CLIENTS = {"httpx.Client", "httpx.AsyncClient", "httpx.get", "httpx.post", "httpx.stream", "httpx.request",
           "urllib.request.urlopen", "requests.get", "requests.post", "aiohttp.ClientSession", "openai.OpenAI",
           "openai.AsyncOpenAI"}  # fmt: skip


def test_one_place_creates_clients() -> None:
    """openai_client is the other: it gives OpenAI's client a transport of its own."""
    places = set()
    for folder in ("engineroom", "labs", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = (
                node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
            )
            places |= {
                (path.relative_to(ROOT).as_posix(), name)
                for call in calls
                if (name := ast.unparse(call)) in CLIENTS
            }
    assert places == {
        ("engineroom/kit/network.py", "httpx.Client"),
        ("engineroom/kit/network.py", "httpx.AsyncClient"),
        ("engineroom/load/client.py", "openai.OpenAI"),
    }
