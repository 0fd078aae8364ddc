"""The dashboard as Grafana reads it: `engineroom metrics grafana` writes deploy/monitoring again from panels.py.

The JSON is Grafana's dashboard model, schema version 39 (grafana.com/docs: "Dashboard JSON model").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from engineroom.kit.files import write_atomic
from engineroom.metrics.panels import ROWS, Panel

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "engineroom.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}  # uid: grafana/provisioning/datasources
WIDTH, HEIGHT = 24, 8  # Grafana's grid


def panel(one: Panel, place: int, x: int, y: int, width: int) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": series.asks.text(series.job, "$__rate_interval"),
            "legendFormat": series.legend,
        }
        for number, series in enumerate(one.series)
    ]
    custom = {"lineWidth": 2, "showPoints": "never", "spanNulls": False}
    return {
        "id": place,
        "type": "timeseries",
        "title": one.title,
        "description": one.tells,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": width, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        grid = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": grid,
                "panels": [],
            }
        )
        width = WIDTH // len(row)
        panels += [panel(one, len(panels) + n + 1, n * width, y + 1, width) for n, one in enumerate(row)]
        y += 1 + HEIGHT
    return {
        "uid": "engineroom",
        "title": "Engine Room: Triton, the engine, vLLM",
        "tags": ["llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "panels": panels,
    }


def targets(file: str | Path, addresses: Mapping[str, str]) -> None:
    """Tell Prometheus (file_sd_configs) what to scrape: of each job, the address of its /metrics."""
    found = []
    for job, address in addresses.items():
        parts = urlsplit(address)
        if parts.scheme != "http" or not parts.netloc:
            raise ValueError(
                f"{job}: {address!r} is no address; expected one such as http://127.0.0.1:8002/metrics."
            )
        found.append({"targets": [parts.netloc], "labels": {"job": job, "__metrics_path__": parts.path}})
    write_atomic(Path(file), json.dumps(found, indent=1) + "\n")


def write_dashboard() -> None:
    """Write the dashboard of deploy/monitoring again from the panels."""
    write_atomic(DASHBOARD, json.dumps(dashboard(), indent=1) + "\n")
