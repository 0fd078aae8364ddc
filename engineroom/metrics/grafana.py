"""The dashboard in Grafana's format: `engineroom metrics grafana` writes it to deploy/monitoring, from panels.py.

The JSON is Grafana's dashboard model, schema version 39 (grafana.com/docs: "Dashboard JSON model").
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from engineroom.kit.errors import UserError
from engineroom.kit.files import write_atomic
from engineroom.metrics.panels import ROWS, Panel

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "engineroom.json"
SOURCE = {"type": "prometheus", "uid": "prometheus"}  # uid: grafana/provisioning/datasources
WIDTH, HEIGHT = 24, 8  # columns of Grafana's grid, and the height of a panel in its rows


def panel_json(panel: Panel, panel_id: int, x: int, y: int, width: int) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query.expression.query(query.job, "$__rate_interval"),
            "legendFormat": query.legend,
        }
        for index, query in enumerate(panel.queries)
    ]
    custom = {"lineWidth": 2, "showPoints": "never", "spanNulls": False}
    no_data = f"No data: published by {' and '.join(panel.jobs)}."  # for a machine where none of them runs
    defaults = {"unit": panel.unit, "min": 0, "custom": custom, "noValue": no_data}
    return {
        "id": panel_id,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": width, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def row_json(title: str, panel_id: int, y: int) -> dict[str, Any]:
    return {
        "id": panel_id,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
        "panels": [],
    }


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(row_json(title, len(panels) + 1, y))
        width = WIDTH // len(row)
        for column, panel in enumerate(row):
            panels.append(panel_json(panel, len(panels) + 1, column * width, y + 1, width))
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


class AddressError(UserError, ValueError):
    """An address that cannot be scraped; the message names it."""


def targets(file: str | Path, addresses: Mapping[str, str]) -> None:
    """Write the file from which Prometheus reads what to scrape (file_sd_configs): the /metrics address of each job.

    Raises AddressError for anything that is not an http address.
    """
    groups: list[dict[str, Any]] = []
    for job, address in addresses.items():
        parts = urlsplit(address)
        if parts.scheme != "http" or not parts.netloc:
            raise AddressError(
                f"{job}: {address!r} is not an address. Give one such as http://127.0.0.1:8002/metrics."
            )
        groups.append({"targets": [parts.netloc], "labels": {"job": job, "__metrics_path__": parts.path}})
    write_atomic(Path(file), json.dumps(groups, indent=1) + "\n")


def write_dashboard(
    out: Annotated[
        Path, typer.Option(help="file to write", show_default="the one in deploy/monitoring")
    ] = DASHBOARD,
) -> None:
    """Write the dashboard as JSON for Grafana."""
    if not os.path.isdir(out.parent):  # False also for a name that is too long
        raise UserError(f"There is no folder {out.parent}. Give --out a file in a folder that exists.")
    write_atomic(out, json.dumps(dashboard(), indent=1) + "\n")
