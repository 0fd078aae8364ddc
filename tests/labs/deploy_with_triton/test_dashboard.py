"""The dashboard against real servers and a real Prometheus: names, answers, and the same figures in a notebook."""

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
from engineroom.openai.start import serve_engine
from engineroom.triton.server import Triton
from labs.deploy_with_triton import dashboard
from tests.engineroom.kit.stubborn import eventually
from tests.engineroom.triton.conftest import ROOT, stream

MONITORING = ROOT / "deploy" / "monitoring"
WINDOW = 30  # seconds
SCRAPES = 6  # of each server under load, by Prometheus once a second
HEADERS = {"Authorization": "Bearer sesame"}
QUERIES = [query for panel in panels.PANELS for query in panel.queries]


@dataclass
class Scene:
    """`seen` by the notebook and asked of Prometheus at the same moment; `pages`: what each server tells at its end."""

    seen: dashboard.Seen
    prometheus: Server
    pages: dict[str, str]
    end: float

    def ask(self, query: str) -> list[dict[str, Any]]:
        parameters = {"query": query, "time": self.end}
        answer = httpx.get(f"{self.prometheus.url}/api/v1/query", params=parameters, trust_env=False).json()
        assert answer["status"] == "success", answer
        return answer["data"]["result"]


def program(name: str) -> str:
    """prometheus or promtool, of the system or of `.venv/prometheus`."""
    own = ROOT / ".venv" / "prometheus" / "usr" / "bin" / name
    found = shutil.which(name) or (str(own) if own.exists() else None)
    assert found, f"There is no {name}. `python3 bootstrap.py --prometheus` brings it."
    return found


def load(triton: Triton, servers: dict[str, str], enough: Callable[[], bool]) -> None:
    """Answers from all, one stream that the client leaves at each, and Triton's ensemble."""
    with httpx.Client(headers=HEADERS, timeout=60, trust_env=False) as http:
        for url, model in servers.items():
            body = {
                "model": model,
                "prompt": "One two",
                "max_tokens": 200,
                "stream": True,
                "ignore_eos": True,
            }
            with http.stream("POST", f"{url}/v1/completions", json=body) as answer:
                next(answer.iter_lines())
        while not enough():
            for url, model in servers.items():
                body = {"model": model, "prompt": "One two", "max_tokens": 8, "ignore_eos": True}
                http.post(f"{url}/v1/completions", json=body).raise_for_status()
            stream(triton, "ensemble", text_input="One two", max_tokens=8, stream=True)


@pytest.fixture(scope="module")
def scene(
    triton: Triton, front: Server, engine: EngineDir, vllm: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copy(MONITORING / "prometheus.yml", folder)
    line = [
        program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
    ]
    line += ["--web.listen-address=127.0.0.1:{port}"]
    with serve_engine(engine.path, name="dashboard", served_model_name="course") as own:
        pages = {"triton": triton.metrics} | {
            job: f"{server.url}/metrics"
            for job, server in {"openai": front, "engine": own, "vllm": vllm}.items()
        }
        grafana.targets(folder / "targets.json", pages)
        with start(line, name="prometheus", ready="/-/ready", timeout=60) as prometheus:
            made, number = Scene(dashboard.Seen(pages), prometheus, {}, 0), len(pages)

            def scraped(count: int, since: float = 0) -> bool:
                """Whether Prometheus has so many samples of every server since that time."""
                made.end = round(time.time(), 3)  # as precise as Prometheus
                samples = [one["values"] for one in made.ask(f"up[{WINDOW}s]")]
                counts = [sum(when > since and up == "1" for when, up in series) for series in samples]
                return len(counts) == number and min(counts) >= count

            assert eventually(lambda: scraped(1))
            with dashboard.watching(pages.pop("triton"), **pages) as made.seen:
                began = time.time()
                urls = {server.url: "course" for server in (front, own, vllm)}
                load(triton, urls, lambda: scraped(SCRAPES, began))
                loaded = time.time()
                assert eventually(lambda: scraped(1, loaded))
            made.pages = {
                job: httpx.get(page, trust_env=False).text for job, page in made.seen.addresses.items()
            }
            yield made


@pytest.mark.parametrize("query", QUERIES, ids=lambda q: f"{q.legend}-{q.expression.query('', '')[:60]}")
def test_every_metric_and_label_is_told_by_its_server(scene: Scene, query: panels.Query) -> None:
    for name, labels in re.findall(r"([a-zA-Z_][\w:]*)\{([^}]*)\}", query.expression.query(query.job, "1s")):
        if name == "up":  # Prometheus' own
            continue
        told = re.findall(rf"^{name}\{{(.*)\}} ", scene.pages[query.job], re.MULTILINE)
        assert told, f"{query.job} does not tell {name}"
        for label, value in re.findall(r'(\w+)=~"([^"]*)"', labels):
            values = {found for one in told for found in re.findall(rf'(?:^|,){label}="([^"]*)"', one)}
            assert any(re.fullmatch(value, one) for one in values), f"{name} has {label} {values}"


def test_prometheus_answers_each_query_of_the_json_and_the_notebook_computes_the_same(scene: Scene) -> None:
    samples: dict[str, dict[promql.Labels, Any]] = defaultdict(dict)
    for name in dashboard.NAMES:
        for one in scene.ask(f"{name}[{WINDOW}s]"):
            labels = one["metric"]
            labels.pop("__name__")
            samples[name][frozenset(labels.items())] = [(when, float(value)) for when, value in one["values"]]
    made = json.loads(grafana.DASHBOARD.read_text())
    texts = [target["expr"] for panel in made["panels"] for target in panel.get("targets", [])]
    assert len(texts) == len(QUERIES)
    for query, text in zip(QUERIES, texts, strict=True):
        answer = scene.ask(text.replace("$__rate_interval", f"{WINDOW}s"))
        theirs = {next(iter(one["metric"].values()), ""): float(one["value"][1]) for one in answer}
        ours = query.expression.evaluate(samples, query.job, WINDOW, scene.end)
        assert any(map(math.isfinite, theirs.values())), f"nothing for {text}"
        assert ours == pytest.approx(theirs, rel=1e-6, nan_ok=True), text


def test_the_notebook_draws_every_panel_with_its_alternative_text(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    dashboard.draw(scene.seen, WINDOW)
    told = capsys.readouterr().out
    assert "nothing to show" not in told
    for panel in panels.PANELS:
        assert f"{panel.title}, {panels.UNITS[panel.unit]}: " in told


def test_the_configuration_is_valid_for_promtool() -> None:
    line = [program("promtool"), "check", "config", str(MONITORING / "prometheus.yml")]
    found = subprocess.run(line, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_json_is_what_the_panels_say_and_grafana_finds_its_source() -> None:
    made = json.loads(grafana.DASHBOARD.read_text())
    assert made == grafana.dashboard(), "run `engineroom metrics grafana`"
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    grid = [panel["gridPos"] for panel in made["panels"]]
    cells = {
        (x, y) for g in grid for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])
    }
    assert len(cells) == sum(g["w"] * g["h"] for g in grid) and max(x for x, _ in cells) < grafana.WIDTH
    folder = MONITORING / "grafana" / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in made["panels"] if "targets" in panel} == {source["uid"]}
    assert (
        source["jsonData"]["timeInterval"]
        == yaml.safe_load((MONITORING / "prometheus.yml").read_text())["global"]["scrape_interval"]
    )


def test_compose_listens_on_this_machine_only_and_mounts_what_there_is() -> None:
    compose = yaml.safe_load((MONITORING / "compose.yaml").read_text())
    prometheus, ui = compose["services"]["prometheus"], compose["services"]["grafana"]
    source = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert (
        f"--web.listen-address={source['datasources'][0]['url'].removeprefix('http://')}"
        in prometheus["command"]
    )
    assert ui["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert ui["environment"]["GF_SECURITY_ADMIN_PASSWORD"].startswith("${GRAFANA_PASSWORD:?")
    for service in (prometheus, ui):
        assert re.fullmatch(r"[\w./]+:v?\d+\.\d+\.\d+", service["image"]), f"{service['image']} is not pinned"
        for volume in service["volumes"]:
            host = volume.split(":")[0]
            assert (MONITORING / host).is_dir() if host.startswith(".") else host in compose["volumes"]
    [provider] = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/engineroom.yaml").read_text())[
        "providers"
    ]
    mounted = dict(reversed(volume.split(":")[:2]) for volume in ui["volumes"])
    assert (MONITORING / mounted[provider["options"]["path"]]).resolve() == grafana.DASHBOARD.parent


def test_a_server_that_is_gone_is_down_and_draws_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    with dashboard.watching(f"http://127.0.0.1:{free_port()}/metrics", interval=0.05) as seen:
        assert eventually(lambda: len(seen.times("triton")) > 2)
    up = panels.Query("triton", promql.Sum("up"), "triton")
    _, values = dashboard.lines(up, seen, 1)["triton"]
    assert len(values) > 2 and set(values) == {0}
    dashboard.draw(seen)
    assert "Up, 1 is up: triton at most 0." in capsys.readouterr().out


def test_what_cannot_be_watched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No address was given"), dashboard.watching():
        pass
    with pytest.raises(ValueError, match="Fewer than two scrapes"):
        dashboard.draw(dashboard.Seen({"triton": "http://127.0.0.1:1/metrics"}))
    with pytest.raises(ValueError, match=r"triton: '127\.0\.0\.1:8002' is not an address"):
        grafana.targets(tmp_path / "targets.json", {"triton": "127.0.0.1:8002"})
    assert not list(tmp_path.iterdir())
