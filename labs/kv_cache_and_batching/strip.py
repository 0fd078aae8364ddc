"""The block table of a run as strips of blocks, redrawn while the run goes on; the last drawing is a static picture.

Every colour is one that can be read on white and on black, since the picture has no background of its own.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable, Sequence

from engineroom.engine.runtime.kv_cache import BlockManager
from engineroom.engine.runtime.request import Request
from engineroom.kit.status import in_notebook
from labs.kit import show
from labs.kv_cache_and_batching.blocks import BlockMap

TEXT = "#767676"  # as legible on white as on black
REQUEST_COLORS = (show.BLUE, show.ORANGE, show.GREEN, show.PURPLE, show.SKY, "#B08D00", show.RED, "#9467BD")
CELL, GAP, LEFT, RIGHT, TOP = 14, 2, 62, 96, 44  # pixels
ROW = CELL + 10
MAX_ROWS = 9


def draw(maps: Sequence[tuple[int, BlockMap]]) -> str:
    """An SVG of several moments, one strip each: (step, blocks). A cell is a block, with the number of its request."""
    num_blocks = len(maps[0][1].owners)
    width = LEFT + num_blocks * (CELL + GAP) + RIGHT
    height = TOP + len(maps) * ROW + 6
    rows = "".join(_row(step, blocks, TOP + index * ROW) for index, (step, blocks) in enumerate(maps))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{TEXT}">'
        '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect width="2" height="5" fill="{TEXT}"/></pattern></defs>'
        f"{_legend()}{rows}</svg>"
    )


def _row(step: int, blocks: BlockMap, y: int) -> str:
    cells = "".join(
        _cell(LEFT + index * (CELL + GAP), y, blocks.state(index), blocks.owners[index])
        for index in range(len(blocks.owners))
    )
    x = LEFT + len(blocks.owners) * (CELL + GAP) + 6
    return (
        f'<text x="0" y="{y + 11}">step {step}</text>{cells}'
        f'<text x="{x}" y="{y + 11}">{blocks.num_free_blocks} free</text>'
    )


def _cell(x: int, y: int, state: str, owners: Sequence[int] = ()) -> str:
    frame = f'<rect x="{x + 0.5}" y="{y + 0.5}" width="{CELL - 1}" height="{CELL - 1}" stroke="{TEXT}"'
    if state == "free":
        return f'{frame} fill="none" stroke-opacity="0.45"/>'
    if state == "cached":
        dot = f'<circle cx="{x + CELL / 2}" cy="{y + CELL / 2}" r="2.5"/>'
        return f'{frame} fill="none" stroke-opacity="0.45"/>{dot}'
    if state == "shared":
        return f'{frame} fill="url(#hatch)"/>'
    color = REQUEST_COLORS[owners[0] % len(REQUEST_COLORS)]
    label = f'<text x="{x + CELL / 2}" y="{y + 11}" text-anchor="middle" fill="black">{owners[0] + 1}</text>'
    return f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{color}"/>{label}'


def _legend() -> str:
    entries = [("owned", (0,), "a block of request 1"), ("owned", (1,), "of request 2, and so on")]
    entries += [
        ("shared", (), "shared by several requests"),
        ("cached", (), "cached prefix, free"),
        ("free", (), "free"),
    ]
    x, parts = LEFT, []
    for state, owners, text in entries:
        parts.append(f'{_cell(x, 12, state, owners)}<text x="{x + CELL + 4}" y="23">{text}</text>')
        x += CELL + 22 + 6 * len(text)
    return "".join(parts)


class BlockStrips:
    """Watches a run: call it after each step with the block manager and all requests of the run.

    In a notebook the picture is redrawn `every` steps, with a pause of `pause` seconds so that it can be followed. The
    picture has up to MAX_ROWS strips, evenly spread over the steps. `maps` has every step.
    """

    def __init__(self, every: int = 4, pause: float = 0.1) -> None:
        self.every, self.pause = every, pause
        self.maps: list[BlockMap] = []
        self._update: Callable[[str, str], None] | None = None

    def __call__(self, block_manager: BlockManager, requests: Sequence[Request]) -> None:
        self.maps.append(BlockMap.of(block_manager, requests))
        is_last = all(request.finished for request in requests)
        if is_last or len(self.maps) % self.every == 1:
            self._show()
            time.sleep(0 if is_last else self.pause)

    @property
    def rows(self) -> list[tuple[int, BlockMap]]:
        """(step, blocks) of the strips to draw: at most MAX_ROWS, the newest step last."""
        num_steps = len(self.maps)
        stride = max(1, -(-(num_steps - 1) // (MAX_ROWS - 2)))
        steps = sorted({*range(1, num_steps + 1, stride), num_steps})
        return [(step, self.maps[step - 1]) for step in steps]

    @property
    def alt(self) -> str:
        """The picture in words."""
        fewest = min(blocks.num_free_blocks for blocks in self.maps)
        most_shared = max(blocks.num_shared_blocks for blocks in self.maps)
        return (
            f"The {len(self.maps[0].owners)} blocks of the KV cache over {len(self.maps)} steps, a strip for each of "
            f"{len(self.rows)} moments. At most {most_shared} blocks are shared; at least {fewest} are free."
        )

    def _show(self) -> None:
        if not in_notebook():
            if all(not indices for indices in self.maps[-1].owners):
                print(self.alt)
            return
        from IPython.display import display

        data = base64.b64encode(draw(self.rows).encode()).decode()
        source = f"data:image/svg+xml;base64,{data}"
        page = f'<img style="max-width:100%" alt="{html.escape(self.alt)}" src="{source}">'
        bundle = {"text/html": page, "text/plain": self.alt}
        if self._update is None:
            handle = display(bundle, raw=True, display_id=True)
            assert handle is not None
            self._update = lambda new_page, new_alt: handle.update(
                {"text/html": new_page, "text/plain": new_alt}, raw=True
            )
        else:
            self._update(page, self.alt)
