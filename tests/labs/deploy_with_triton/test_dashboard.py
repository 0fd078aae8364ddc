"""The dashboard against real servers and a real Prometheus: names, query results, and the same values in a notebook."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from engineroom.engine.directory import EngineDir
from engineroom.kit.process import Server, free_port, start
from engineroom.metrics import grafana, panels, promql
from engineroom.metrics.history import METRIC_NAMES, HistoryError, MetricsHistory, record_metrics
from engineroom.openai.start import serve_engine
from engineroom.triton.server import Triton
from labs.deploy_with_triton import dashboard
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.triton.conftest import ROOT, stream

MONITORING = ROOT / "deploy" / "monitoring"
WINDOW = 30  # seconds
NUM_SCRAPES = 6  # of each server under load; Prometheus scrapes once a second
HEADERS = {"Authorization": "Bearer sesame"}
QUERIES = [query for panel in panels.PANELS for query in panel.queries]


@dataclass
class Recording:
    """The same load, recorded by the notebook and by Prometheus.

    `pages`: the text of each server's /metrics at the end. `end`: the Unix time for which Prometheus is queried.
    """

    history: MetricsHistory
    prometheus: Server
    pages: dict[str, str]
    end: float

    def query(self, query: str) -> list[dict[str, Any]]:
        parameters = {"query": query, "time": self.end}
        url = f"{self.prometheus.url}/api/v1/query"
        response = httpx.get(url, params=parameters, trust_env=False).json()
        assert response["status"] == "success", response
        return response["data"]["result"]


def read_yaml(path: str) -> Any:
    """A file of deploy/monitoring."""
    return yaml.safe_load((MONITORING / path).read_text())


def program(name: str) -> str:
    """The path of prometheus or promtool, from the system or from `.venv/prometheus`."""
    installed = ROOT / ".venv" / "prometheus" / "usr" / "bin" / name
    path = shutil.which(name) or (str(installed) if installed.exists() else None)
    assert path, f"{name} is not installed. Install it with `python3 bootstrap.py --prometheus`."
    return path


def send_load(triton: Triton, urls: list[str], is_enough: Callable[[], bool]) -> None:
    """Requests to all servers and to Triton's ensemble, after one stream at each server that the client leaves."""
    with httpx.Client(headers=HEADERS, timeout=60, trust_env=False) as http:
        body: dict[str, Any] = {"model": "course", "prompt": "One two", "ignore_eos": True}
        for url in urls:
            stream_body = body | {"max_tokens": 200, "stream": True}
            with http.stream("POST", f"{url}/v1/completions", json=stream_body) as response:
                next(response.iter_lines())
        while not is_enough():
            for url in urls:
                http.post(f"{url}/v1/completions", json=body | {"max_tokens": 8}).raise_for_status()
            stream(triton, "ensemble", text_input="One two", max_tokens=8, stream=True)


@pytest.fixture(scope="module")
def recording(
    triton: Triton,
    frontend: Server,
    engine: EngineDir,
    vllm: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Recording]:
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(MONITORING / "prometheus.yml", folder)
    command = [
        program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:{port}",
    ]
    with serve_engine(engine.path, name="dashboard", served_model_name="course") as engine_server:
        servers = {"openai": frontend, "engine": engine_server, "vllm": vllm}
        addresses = {"triton": triton.metrics}
        addresses |= {job: f"{server.url}/metrics" for job, server in servers.items()}
        grafana.targets(folder / "targets.json", addresses)
        with start(command, name="prometheus", ready="/-/ready", timeout=60) as prometheus:
            recording = Recording(MetricsHistory(addresses), prometheus, {}, 0)

            def is_scraped(num_scrapes: int, since: float = 0) -> bool:
                """Whether Prometheus has that many samples of every server since that time."""
                recording.end = round(time.time(), 3)  # Prometheus counts milliseconds
                all_series = [series["values"] for series in recording.query(f"up[{WINDOW}s]")]
                counts = [sum(time > since and up == "1" for time, up in series) for series in all_series]
                return len(counts) == len(addresses) and min(counts) >= num_scrapes

            assert eventually(lambda: is_scraped(1))
            with record_metrics(**addresses) as recording.history:
                load_start = time.time()
                urls = [server.url for server in servers.values()]
                send_load(triton, urls, lambda: is_scraped(NUM_SCRAPES, load_start))
                load_end = time.time()
                assert eventually(lambda: is_scraped(1, load_end))
            recording.pages = {
                job: httpx.get(address, trust_env=False).text for job, address in addresses.items()
            }
            yield recording


@pytest.mark.parametrize(
    "query", QUERIES, ids=lambda query: f"{query.legend}-{query.expression.query('', '')[:60]}"
)
def test_every_metric_and_label_is_published_by_its_server(recording: Recording, query: panels.Query) -> None:
    for name, labels in re.findall(r"([a-zA-Z_][\w:]*)\{([^}]*)\}", query.expression.query(query.job, "1s")):
        if name == "up":  # Prometheus' own
            continue
        label_sets = re.findall(rf"^{name}\{{(.*)\}} ", recording.pages[query.job], re.MULTILINE)
        assert label_sets, f"{query.job} does not publish {name}"
        for label, pattern in re.findall(r'(\w+)=~"([^"]*)"', labels):
            values = {
                value
                for label_set in label_sets
                for value in re.findall(rf'(?:^|,){label}="([^"]*)"', label_set)
            }
            assert any(re.fullmatch(pattern, value) for value in values), f"{name} has {label} {values}"


def test_prometheus_answers_each_query_of_the_json_and_the_notebook_computes_the_same(
    recording: Recording,
) -> None:
    all_series: dict[str, dict[promql.Labels, Any]] = defaultdict(dict)
    for name in METRIC_NAMES:
        for series in recording.query(f"{name}[{WINDOW}s]"):
            labels = series["metric"]
            labels.pop("__name__")
            points = [(time, float(value)) for time, value in series["values"]]
            all_series[name][frozenset(labels.items())] = points
    json_model = json.loads(grafana.DASHBOARD.read_text())
    texts = [target["expr"] for panel in json_model["panels"] for target in panel.get("targets", [])]
    assert len(texts) == len(QUERIES)
    for query, text in zip(QUERIES, texts, strict=True):
        result = recording.query(text.replace("$__rate_interval", f"{WINDOW}s"))
        expected = {next(iter(series["metric"].values()), ""): float(series["value"][1]) for series in result}
        actual = query.expression.evaluate(all_series, query.job, WINDOW, recording.end)
        assert any(map(math.isfinite, expected.values())), f"nothing for {text}"
        assert actual == pytest.approx(expected, rel=1e-6, nan_ok=True), text


def test_the_notebook_draws_every_panel_with_its_alternative_text(
    recording: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.draw(recording.history, WINDOW)
    alt = capsys.readouterr().out
    assert "no data" not in alt
    for panel in panels.PANELS:
        assert f"{panel.title}, {panels.UNITS[panel.unit]}: " in alt


def test_the_configuration_is_valid_for_promtool() -> None:
    command = [program("promtool"), "check", "config", str(MONITORING / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_json_is_what_the_panels_say_and_grafana_finds_its_source() -> None:
    json_model = json.loads(grafana.DASHBOARD.read_text())
    assert json_model == grafana.dashboard(), "run `engineroom metrics grafana`"
    ids = [panel["id"] for panel in json_model["panels"]]
    assert len(set(ids)) == len(ids)
    positions = [panel["gridPos"] for panel in json_model["panels"]]
    cells = {
        (position["x"] + column, position["y"] + row)
        for position in positions
        for column in range(position["w"])
        for row in range(position["h"])
    }
    assert len(cells) == sum(position["w"] * position["h"] for position in positions)  # no two overlap
    assert max(x for x, _ in cells) < grafana.WIDTH
    [source] = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    source_ids = {panel["datasource"]["uid"] for panel in json_model["panels"] if "targets" in panel}
    assert source_ids == {source["uid"]}
    scrape_interval = read_yaml("prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape_interval


def test_compose_listens_on_this_machine_only_and_mounts_folders_that_exist() -> None:
    compose = read_yaml("compose.yaml")
    prometheus, ui = compose["services"]["prometheus"], compose["services"]["grafana"]
    [source] = read_yaml("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    listen_address = source["url"].removeprefix("http://")
    assert f"--web.listen-address={listen_address}" in prometheus["command"]
    assert ui["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert ui["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    for service in (prometheus, ui):
        assert re.fullmatch(r"[\w./]+:v?\d+\.\d+\.\d+", service["image"]), f"{service['image']} is not pinned"
        for volume in service["volumes"]:
            host = volume.split(":")[0]
            assert (MONITORING / host).is_dir() if host.startswith(".") else host in compose["volumes"]
    [provider] = read_yaml("grafana/provisioning/dashboards/engineroom.yaml")["providers"]
    host_folders = dict(
        reversed(volume.split(":")[:2]) for volume in ui["volumes"]
    )  # by the container's folder
    assert (MONITORING / host_folders[provider["options"]["path"]]).resolve() == grafana.DASHBOARD.parent


def test_a_server_that_does_not_answer_is_drawn_as_down(capsys: pytest.CaptureFixture[str]) -> None:
    with record_metrics(f"http://127.0.0.1:{free_port()}/metrics", interval=0.05) as history:
        assert eventually(lambda: len(history.times("triton")) > 2)
    up = panels.Query("triton", promql.Sum("up"), "triton")
    [line] = dashboard.query_lines(up, history, 1)
    assert line.legend == "triton" and len(line.values) > 2 and set(line.values) == {0}
    dashboard.draw(history)
    alt = capsys.readouterr().out
    assert "Up, 1 is up: triton at most 0." in alt
    assert "Running, requests: no data: triton counted nothing of this kind." in alt


def test_an_empty_panel_says_which_servers_publish_it() -> None:
    """Without the engine's own server and vLLM, as in the lesson, two panels have no line."""
    recorded = ("triton", "openai")
    reasons = {
        panel.title: dashboard.reason_for_no_data(panel, recorded)
        for panel in panels.PANELS
        if not set(panel.jobs) & set(recorded)
    }
    reason = "no data: published by\nengine and vllm,\nwhich this recording does not contain"
    assert reasons == dict.fromkeys(("Prefix cache hits", "Queue of the engine"), reason)
    for panel in grafana.dashboard()["panels"]:
        if panel["title"] in reasons:
            assert panel["fieldConfig"]["defaults"]["noValue"] == "No data: published by engine and vllm."


def test_what_cannot_be_recorded_or_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="No address was given"), record_metrics():
        pass
    with pytest.raises(HistoryError, match="fewer than two scrapes"):
        dashboard.draw(MetricsHistory({"triton": "http://127.0.0.1:1/metrics"}))
    with pytest.raises(ValueError, match=r"triton: '127\.0\.0\.1:8002' is not an address"):
        grafana.targets(tmp_path / "targets.json", {"triton": "127.0.0.1:8002"})
    assert not list(tmp_path.iterdir())
