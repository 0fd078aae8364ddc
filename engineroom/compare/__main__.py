"""Measure engines and servers side by side, in turn, and keep the result as records."""

from __future__ import annotations

from engineroom.compare.offline import offline
from engineroom.compare.served import served
from engineroom.compare.triton_overhead import triton_overhead
from engineroom.kit.command import application, run

app = application(__doc__, no_args_is_help=True)
app.command("offline")(offline)
app.command("served")(served)
app.command("triton-overhead")(triton_overhead)

if __name__ == "__main__":
    run(app)
