"""The dashboard over the metrics of all servers."""

from __future__ import annotations

from engineroom.kit.command import application, run
from engineroom.metrics.grafana import write_dashboard

app = application(__doc__, no_args_is_help=True)
app.command("grafana")(write_dashboard)


@app.callback()
def group() -> None:
    """The dashboard over the metrics of all servers."""


if __name__ == "__main__":
    run(app)
