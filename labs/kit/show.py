"""Pictures and tables that lessons share: colours that colour-blind people can tell apart, text for every picture."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engineroom.kit.status import in_notebook

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design" (2008)
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A8A8A")  # fmt: skip

# JupyterLab marks its theme on the body. In a dark theme, white becomes the dark of a notebook, #111111, and hues stay.
# Elsewhere, and in a notebook that is not trusted, a picture stays white.
DARK_THEME = (
    '<style>body[data-jp-theme-light="false"] img.engineroom-picture '
    "{ filter: invert(0.94) hue-rotate(180deg) saturate(1.15) brightness(1.12); }</style>"
)


def show_html(page: str, *, plain: str) -> None:
    """Display ``page``, which is HTML, in a notebook; print ``plain`` elsewhere. A notebook's file contains both."""
    if not in_notebook():
        print(plain)
        return
    from IPython.display import display

    display({"text/html": page, "text/plain": plain}, raw=True)


def verdict_html(verdict: str, colour: str, name: str, message: str) -> str:
    """The box of a verdict on an exercise or a challenge; ``message`` is HTML."""
    return (
        f'<div style="border-left:4px solid {colour};padding:.3em .8em">'
        f'<b style="background:{colour};color:#fff;padding:.1em .4em;border-radius:3px">{verdict}</b> '
        f"{name} — {message}</div>"
    )


@contextmanager
def picture(alt: str | list[str], rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (8, 3.4),
            **subplots: Any) -> Iterator[tuple[Figure, Any]]:  # fmt: skip
    """Yield (figure, axes) as ``plt.subplots`` does, then show the figure with ``alt`` as its alternative text.

    ``alt`` may be a list of sentences to which the block appends while it draws. Raises ValueError when it is empty.
    """
    from matplotlib import figure as matplotlib  # slow to import

    figure = matplotlib.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, **subplots)
    for plot in figure.axes:
        plot.spines[["top", "right"]].set_visible(False)
        plot.grid(axis="both", alpha=0.25)
        plot.set_axisbelow(True)
    yield figure, axes
    text = alt if isinstance(alt, str) else " ".join(alt)
    if not text.strip():
        raise ValueError("A picture needs its alternative text: one sentence that says what it shows.")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img class="engineroom-picture" style="max-width:100%" alt="{html.escape(text)}" '
    show_html(f'{DARK_THEME}{image}src="data:image/png;base64,{data}">', plain=text)


def table(rows: list[dict[str, object]], caption: str) -> None:
    """Show rows as a table. The keys of the first row are the headings; floats have three significant digits."""
    import pandas

    frame = pandas.DataFrame(rows)
    text = frame.to_string(index=False, float_format="{:.3g}".format)
    page = frame.to_html(index=False, border=0, float_format="{:.3g}".format, justify="left")
    page = page.replace(">", f"><caption>{html.escape(caption)}</caption>", 1)
    show_html(page, plain=f"{caption}\n{text}")
