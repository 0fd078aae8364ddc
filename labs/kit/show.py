"""The few pictures and widgets that lessons share: colour-blind-safe, each picture with a text in its place."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from labs.kit.statusline import in_notebook

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Item = TypeVar("Item")

# Okabe & Ito, "Color Universal Design" (2008)
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")  # fmt: skip


@contextmanager
def picture(alt: str | list[str], rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (8, 3.4),
            **subplots: object) -> Iterator[tuple[Figure, Axes]]:  # fmt: skip
    """Yield (figure, axes) as from ``plt.subplots``, then show the figure with ``alt`` as its alternative text.

    ``alt`` may be a list, which the block fills with what it learns while drawing. Raises ValueError without it.
    """
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, **subplots)
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="both", alpha=0.25)
        one.set_axisbelow(True)
    yield figure, axes
    text = alt if isinstance(alt, str) else " ".join(alt)
    if not text.strip():
        raise ValueError("A picture needs its alternative text: one sentence that says what it shows.")
    _show(figure, text)


def _show(figure: Figure, alt: str) -> None:
    if not in_notebook():
        print(f"[picture] {alt}")
        return
    from IPython.display import display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img style="max-width:100%" alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
    display({"text/html": image, "text/plain": alt}, raw=True)


def progress(items: Iterable[Item], what: str) -> Iterator[Item]:
    """Go through ``items`` with a progress bar: a widget in JupyterLab, a line of text elsewhere."""
    from tqdm.auto import tqdm

    bar = tqdm(list(items), desc=what)
    try:
        yield from bar
    finally:
        bar.total = bar.n  # a loop that ends early is done as well
        bar.close()


def table(rows: list[dict[str, object]], caption: str) -> None:
    """Show rows as a table; the keys of the first row are the headings, floats get three digits."""
    import pandas

    frame = pandas.DataFrame(rows)
    text = frame.to_string(index=False, float_format="{:.3g}".format)
    if not in_notebook():
        print(f"{caption}\n{text}")
        return
    from IPython.display import display

    body = frame.to_html(index=False, border=0, float_format="{:.3g}".format, justify="left")
    body = body.replace(">", f"><caption>{html.escape(caption)}</caption>", 1)
    display({"text/html": body, "text/plain": f"{caption}\n{text}"}, raw=True)
