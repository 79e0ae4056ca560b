"""What all pages and plots share: one palette, one figure style, one template.

A page is one HTML file that opens offline. It loads nothing, and its one script (page.js) only makes it handier: its
Content-Security-Policy forbids every request and every other script. Its figures are SVG in the page's own colours, so
that they follow its light and dark theme.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookonce import __version__
from lookonce.errors import printable_lines
from lookonce.files import write_text

if TYPE_CHECKING:
    import jinja2
    from markupsafe import Markup
    from matplotlib.figure import Figure
    from PIL.Image import Image

PALETTE = {
    "ink": ("#1b1d20", "#e8e6e1"),
    "muted": ("#63686f", "#9aa1ab"),
    "card": ("#ffffff", "#1c1f25"),
    "paper": ("#fbfaf7", "#14161a"),
    "accent": ("#0072b2", "#5ab0ec"),
    "warm": ("#c04f00", "#f58b4c"),
    "green": ("#007a58", "#3fc79c"),
    "pink": ("#b3588a", "#e39ac2"),
    "orange": ("#b07800", "#f0c04a"),
    "sky": ("#3d94c9", "#a9dcf7"),
}
"""Name -> (light, dark). After the colour-blind safe palette of Okabe and Ito, darkened so that text can be read."""
INK, MUTED, CARD, PAPER, ACCENT, WARM, *_ = (light for light, _ in PALETTE.values())
SERIES = [light for name, (light, _) in PALETTE.items() if name not in ("ink", "muted", "card", "paper")]
Margins = tuple[float, float, float, float]
"""Left, right, bottom, top of a figure's axes, inches."""
STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "svg.hashsalt": "lookonce", "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": MUTED,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.titlesize": 10, "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 9,
    "grid.color": MUTED, "grid.alpha": 0.3, "grid.linewidth": 0.6,
}  # fmt: skip


@cache  # compiling a template takes a tenth of a second
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("lookonce", "report"), autoescape=True)
    environment.filters["ratio"] = lambda value: "-" if value is None else f"{value:.3f}"
    environment.filters["options"] = _unbroken_options
    environment.filters["sentence"] = lambda text: f"{text[:1].upper()}{text[1:].removesuffix('.')}."
    return environment


@cache
def _script(name: str) -> tuple[str, str]:
    """Return a script of this package, and its hash as a Content-Security-Policy names it."""
    text = files("lookonce.report").joinpath(name).read_text(encoding="utf-8")
    return text, "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def write_page(path: Path, template: str, script_name: str = "page.js", **values: Any) -> Path:
    """Write a page from a template, whole or not at all. All text in values is escaped, for HTML and for terminals."""
    script, script_hash = _script(script_name)
    text = (
        _environment()
        .get_template(template)
        .render(version=__version__, palette=PALETTE, script=script, script_hash=script_hash, **values)
    )
    write_text(path, _with_contents(printable_lines(text)))
    return path


def drawn(template: str, macro: str, *values: Any) -> Markup:
    """Return what a macro of a template of this package makes of values, as HTML. All text in values is escaped."""
    from markupsafe import Markup

    return Markup(getattr(_environment().get_template(template).module, macro)(*values))


def _with_contents(text: str) -> str:
    """Give each section an address and put links to all of them below the title."""
    titles = re.findall("<h2>(.*?)</h2>", text)
    links = []
    for title in titles:
        address = re.sub(r"[^a-z0-9]+", "-", html.unescape(title).lower()).strip("-")
        text = text.replace(f"<h2>{title}</h2>", f'<h2 id="{address}">{title}</h2>', 1)
        links.append(f'<a href="#{address}">{title}</a>')
    contents = f'<nav class="contents" aria-label="sections">{"".join(links)}</nav>' if len(links) > 1 else ""
    return text.replace("<!-- contents -->", contents, 1)


def _unbroken_options(text: str) -> Markup:
    """Return text as HTML in which options such as --size 512 are code that is not broken at its hyphens."""
    from markupsafe import Markup, escape

    parts = re.split(r"(?<![\w-])(--[a-z][a-z-]*(?: \d[\dx]*(?:\.\d+)?)?)", text)
    code = '<code class="nowrap">{}</code>'
    return Markup("").join(Markup(code).format(part) if n % 2 else escape(part) for n, part in enumerate(parts))


def data_uri(image: Image) -> str:
    """Return an image as a data: address, so that the page needs no other file."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=87)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


@contextmanager
def styled_figure(width: float, height: float, margins: Margins | None = None) -> Iterator[Figure]:
    """Make a figure in the common style, which holds within `with`.

    width, height: inches (72 CSS px each). margins: around its axes; None: fitted to its texts, which takes longer.
    """
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE | {"axes.prop_cycle": cycler(color=SERIES)}):  # type: ignore[arg-type]
        figure = Figure(figsize=(width, height), dpi=110, layout=None if margins else "constrained")
        if margins:
            left, right, bottom, top = margins
            figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
        yield figure


def to_svg(figure: Figure) -> str:
    """Return the figure as an <svg> element that scales with the page and takes its colours."""
    text = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's browser has its own letters
        figure.savefig(text, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    for name, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg[svg.index("<svg") :]
