"""The switch: which addresses are refused, and what a collector that does not answer costs."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from engineroom.kit.errors import UserError
from engineroom.kit.ports import free_port
from engineroom.openai.__main__ import app as openai_app
from engineroom.tracing.switch import TracingError, check_endpoint, start_tracing
from engineroom.triton.__main__ import app as triton_app
from tests.engineroom.tracing.conftest import Start, body, client, new_trace_id, traceparent

BAD = {
    "": "expected http",
    "127.0.0.1:4318": "expected http",
    "localhost:4318/v1/traces": "expected http",
    "grpc://127.0.0.1:4317/v1/traces": "OTLP over gRPC is not supported",
    "http://127.0.0.1:4318": "expected a path, which is /v1/traces",
    "http://127.0.0.1:4318/": "expected a path",
    "http:///v1/traces": "expected a host",
    "http://:4318/v1/traces": "expected a host",
    "http://127.0.0.1:port/v1/traces": "integer",
    "http://127.0.0.1:99999/v1/traces": "range",
    "http://127.0.0.1:0/v1/traces": "expected a port from 1 to 65535",
    "http://127.0.0.1:-1/v1/traces": "integer",
    "http://[::1/v1/traces": "Invalid IPv6",
    "http://127.0.0.1:4318/v1/ traces": "without spaces",
    "http://127.0.0.1:4318/v1/traces\n": "without spaces",
    "http://collectör:4318/v1/traces": "ASCII",
}


@pytest.mark.parametrize("endpoint", BAD)
def test_a_bad_address_is_refused_by_every_command(endpoint: str, tmp_path: Path) -> None:
    option = ["--otlp_traces_endpoint", endpoint]
    with pytest.raises(TracingError, match=re.escape(BAD[endpoint])) as error:
        check_endpoint(endpoint)
    assert "--otlp_traces_endpoint" in str(error.value) and "http://127.0.0.1:4318/v1/traces" in str(
        error.value
    )
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.pbtxt").touch()
    commands = [(openai_app, [str(tmp_path)]), (triton_app, ["openai", str(tmp_path)])]
    commands.append((triton_app, ["serve", str(tmp_path)]))
    for app, arguments in commands:
        assert isinstance(CliRunner().invoke(app, arguments + option).exception, TracingError), arguments


@given(st.text() | st.text("htp:/[]@#?%.0123456789ab ", max_size=30).map("http://{}".format))
@example("http://a/\x00")
def test_any_text_is_accepted_or_refused_with_a_reason(endpoint: str) -> None:
    try:
        check_endpoint(endpoint)
    except UserError as error:
        assert "Give the whole address" in str(error)
    else:
        assert endpoint.startswith(("http://", "https://", "HTTP", "Http", "hTTP"))


def test_good_addresses() -> None:
    for endpoint in (
        "http://127.0.0.1:4318/v1/traces",
        "https://collector/x",
        "http://[::1]:4318/v1/traces?a=b",
    ):
        check_endpoint(endpoint)
    assert start_tracing(None, "service") is None


@pytest.fixture(params=["closed", "never answers"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """A port on which nobody listens, or one that accepts connections, and nobody answers."""
    if request.param == "closed":
        yield f"http://127.0.0.1:{free_port()}/v1/traces"
        return
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"


def test_a_collector_that_does_not_answer_disturbs_nothing(
    start: Start, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter itself would try for an hour; the kit would kill the server after 20 seconds."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3600")
    with start(otlp_traces_endpoint=endpoint, name="unreachable") as server:
        with client(server) as http:
            texts = set()
            for stream in (False, True, False):
                headers = traceparent(new_trace_id())
                response = http.post("/v1/completions", json=body(5, stream=stream), headers=headers)
                assert response.status_code == 200
                texts.add(response.text if stream else response.json()["choices"][0]["text"])
            assert len(texts) == 2 and http.get("/health").status_code == 200
        server.stop(grace=20)
    assert server.exit_code == -signal.SIGTERM and "Traceback" not in server.logs(400)
