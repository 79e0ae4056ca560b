"""Drawings of what happens to one image: grid, targets, masks, loss maps, boxes. Pages and notebooks show the same."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lookonce.errors import plural
from lookonce.model.layers import PlacedHead
from lookonce.report.explain_boxes import Candidates
from lookonce.report.explain_encoding import LTWH, Example, Target
from lookonce.report.explain_loss import IGNORED, OBJECT, LossMaps
from lookonce.report.explain_network import LayerTable
from lookonce.report.overlay import hex_colour
from lookonce.report.page import PALETTE, drawn

SIDE = 416
"""Pixels of an input for which lines and letters of a drawing are made; they grow with the input."""
HEAT = (255, 196, 61)
"""Colour of a map's largest value; 0 is transparent."""
ROLE_COLOURS = ((61, 148, 201, 70), (53, 214, 164, 255), (255, 225, 77, 150))
"""Background, object, not trained (explain_loss)."""
ROLE_MARKS = {OBJECT: "●", IGNORED: "×"}
STYLE = (
    ".lookonce{max-width:60rem;font-size:.9rem}.lookonce figure{margin:0;max-width:34rem}"
    ".lookonce>svg{max-width:100%;height:auto}"
    ".lookonce .gallery{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr))}"
    ".lookonce .off{display:none}.lookonce .total td{font-weight:700}.lookonce .scroll{overflow-x:auto}"
    ".lookonce th,.lookonce td{text-align:right;padding:.15rem .6rem;white-space:nowrap}"
    ".lookonce table{border-collapse:collapse}"
)


class Drawing:
    """HTML for a page; alone in a notebook, in the colours of pages."""

    def __init__(self, html: str) -> None:
        self.html = html

    def _repr_html_(self) -> str:
        colours = ";".join(f"--{name}:light-dark({light},{dark})" for name, (light, dark) in PALETTE.items())
        return f'<div class="lookonce" style="{colours}"><style>{STYLE}</style>{self.html}</div>'


@dataclass(frozen=True, eq=False)
class Subject:
    """An example at one head, with what its drawings need."""

    example: Example
    head: PlacedHead

    @property
    def name(self) -> str:
        """File of the image."""
        return self.example.name

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), input px."""
        return self.example.input_size

    @property
    def stride(self) -> int:
        """Input pixels a cell."""
        return self.head.stride

    @property
    def scale(self) -> float:
        """Factor for lines and letters."""
        return max(self.size) / SIDE

    @cached_property
    def uri(self) -> str:
        """The input as an image."""
        return self.example.uri

    @cached_property
    def targets(self) -> list[Target]:
        """What the network is trained to predict for each object."""
        return self.example.targets(self.head)


class Tile(NamedTuple):
    """A map over the image."""

    title: str
    note: str
    uri: str
    marks: list[tuple[float, float, str]]
    font: float = 0.0


class Shown(NamedTuple):
    """A box on the image."""

    name: str
    colour: str
    box: LTWH
    score: float
    off: bool


def grid_drawing(subject: Subject) -> Drawing:
    """Draw the grid, the responsible cells, the boxes and their anchors."""
    return _drawing("grid", subject)


def targets_table(subject: Subject) -> Drawing:
    """Show the targets of each object."""
    return _drawing("targets", subject.targets)


def encoding_section(subject: Subject) -> Drawing:
    """Draw the grid beside the table of targets, with keys: a section of a page."""
    return _drawing("encoding", subject)


def layers_drawing(table: LayerTable) -> Drawing:
    """Show a network's layers."""
    return _drawing("layers", table)


def terms_drawing(terms: Mapping[str, float]) -> Drawing:
    """Show the terms of a loss and their shares of the total."""
    return _drawing("terms", dict(terms))


def heat_maps(subject: Subject, maps: Mapping[str, Tensor]) -> Drawing:
    """Draw maps of the grid, each from 0 to its own largest value.

    maps: title -> [A, H, W], of which the anchors are summed, or [H, W].
    """
    tiles = []
    for title, values in maps.items():
        flat = (values.sum(0) if values.ndim == 3 else values).numpy()
        most = float(flat.max())
        alpha = np.round(255 * flat.clip(0) / most if most > 0 else 0 * flat).astype(np.uint8)
        pixels = np.dstack((*(np.full_like(alpha, c) for c in HEAT), alpha))
        tiles.append(Tile(title, f"sum {flat.sum():.3g}, largest {most:.3g}", _png(pixels), []))
    return _drawing("tiles", subject, tiles)


def mask_drawing(subject: Subject, roles: Tensor) -> Drawing:
    """Draw the role of each predictor: a tile for each anchor. roles: [A, H, W] of LossMaps."""
    stride, tiles = subject.stride, []
    for number, of_anchor in enumerate(roles.numpy(), 1):
        marks = [((x + 0.5) * stride, (y + 0.72) * stride, mark) for role, mark in ROLE_MARKS.items()
                 for y, x in np.argwhere(of_anchor == role).tolist()]  # fmt: skip
        note = f"● {plural(int((of_anchor == OBJECT).sum()), 'object')}, × {(of_anchor == IGNORED).sum()} not trained"
        pixels = np.array(ROLE_COLOURS, np.uint8)[of_anchor]
        tiles.append(Tile(f"anchor {number}", note, _png(pixels), marks, 0.7 * stride))
    return _drawing("tiles", subject, tiles)


def loss_drawing(subject: Subject, found: LossMaps) -> Drawing:
    """Draw what each cell adds to each term of the loss."""
    return heat_maps(subject, found.maps)


def boxes_drawing(subject: Subject, found: Candidates, kept: Sequence[int] | NDArray[np.int64] | None = None,
                  caption: str = "", tags: bool = False) -> Drawing:  # fmt: skip
    """Draw candidates, the best on top. Boxes that are not kept are drawn hidden, so that a page can show them.

    kept: indices of those to show; None: all. tags: write class and score on each box.
    """
    shown = set(range(len(found.scores)) if kept is None else np.asarray(kept).tolist())
    names = subject.example.labels
    boxes = []
    for i in range(len(found.scores) - 1, -1, -1):
        (x1, y1, x2, y2), name = found.boxes[i].tolist(), names[found.labels[i]]
        box = (x1, y1, x2 - x1, y2 - y1)
        boxes.append(Shown(name, hex_colour(name, names), box, float(found.scores[i]), i not in shown))
    return _drawing("boxes", subject, boxes, caption or f"{len(shown)} boxes", tags)


def _drawing(macro: str, *values: Any) -> Drawing:
    return Drawing(drawn("explain_drawings.html", macro, *values))


def _png(pixels: NDArray[np.uint8]) -> str:
    """Return RGBA pixels [H, W, 4] as a data: address."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
