"""Measure vLLM on this machine and save the result as records."""

from __future__ import annotations

from engineroom.kit.command import application, run
from engineroom.vllm.measure import measure

app = application(__doc__, no_args_is_help=True)
app.command()(measure)


@app.callback()
def group() -> None:
    """Measure vLLM on this machine and save the result as records."""


if __name__ == "__main__":
    run(app)
