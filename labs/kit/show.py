"""The few pictures and widgets that lessons share: colour-blind-safe, each picture with a text in its place."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engineroom.kit.status import in_notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design" (2008)
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")  # fmt: skip


def say(plain: str, page: str) -> None:
    """Show ``page``, as HTML, in a notebook, and ``plain`` elsewhere and to who reads no pictures."""
    if not in_notebook():
        print(plain)
        return
    from IPython.display import display

    display({"text/html": page, "text/plain": plain}, raw=True)


@contextmanager
def picture(alt: str | list[str], rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (8, 3.4),
            **subplots: object) -> Iterator[tuple[Figure, Axes]]:  # fmt: skip
    """Yield (figure, axes) as from ``plt.subplots``, then show the figure with ``alt`` as its alternative text.

    ``alt`` may be a list, which the block fills with what it learns while drawing. Raises ValueError without it.
    """
    from matplotlib import figure as matplotlib  # slow to import

    figure = matplotlib.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, **subplots)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="both", alpha=0.25)
        one.set_axisbelow(True)
    yield figure, axes
    text = alt if isinstance(alt, str) else " ".join(alt)
    if not text.strip():
        raise ValueError("A picture needs its alternative text: one sentence that says what it shows.")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    say(text, f'<img style="max-width:100%" alt="{html.escape(text)}" src="data:image/png;base64,{data}">')


def table(rows: list[dict[str, object]], caption: str) -> None:
    """Show rows as a table; the keys of the first row are the headings, floats get three digits."""
    import pandas

    frame = pandas.DataFrame(rows)
    text = frame.to_string(index=False, float_format="{:.3g}".format)
    page = frame.to_html(index=False, border=0, float_format="{:.3g}".format, justify="left")
    say(f"{caption}\n{text}", page.replace(">", f"><caption>{html.escape(caption)}</caption>", 1))
