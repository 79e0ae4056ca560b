"""zones: a page on which lines and zones are drawn over a still of a video."""

from __future__ import annotations

import os
import shlex
import sys
import webbrowser
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from PIL import Image

from lookonce.commands.arguments import AnyPath, expanded
from lookonce.data.images import load_rgb
from lookonce.errors import ConfigError, UserError, printable
from lookonce.files import check_output, free_name
from lookonce.inference.sources import Sampling, Source, kind_of
from lookonce.inference.zones import Zones, read_zones
from lookonce.report.zones_page import ZonesPage, write_zones_page


@dataclass(frozen=True)
class Drawing:
    """The result of `lookonce zones`."""

    page: Path
    file: str
    """Name of the file that the page saves."""
    command: str
    """How to detect with it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return {"page": str(self.page), "file": self.file, "command": self.command}

    def __str__(self) -> str:
        return (f"{printable(str(self.page))}: open it in a browser and draw; it saves {printable(self.file)}. Then:\n"
                f"{printable(self.command)}")  # fmt: skip


def zones(
    source: str | Path,
    file: AnyPath | None = None,
    *,
    at: float = 0.0,
    out: AnyPath | None = None,
    overwrite: bool = False,
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
) -> Drawing:
    """Write a page on which you draw the lines and zones at which detect counts, and open it in your browser.

    The page is one file with a still of the video. It works without a network, and saves a small YAML file.

    Args:
        source: A video, an image, the number of a camera (0), or the address of a stream.
        file: File of lines and zones to change; none: begin with none.
        at: Seconds of the video at which to take the still.
        out: File of the page; none: NAME-zones.html in the current folder.
        overwrite: Replace the page if it exists.
        browser: Open the page in the browser of this computer, where there is a display.
    Returns:
        The page, and how to go on.
    Raises:
        UserError: the source or the file cannot be read, or the video is shorter.
    """
    name = str(source)
    stem = f"camera-{name}" if kind_of(name) == "camera" else Path(name.split("?")[0]).stem or "stream"
    known = Zones() if file is None else read_zones(expanded(file))
    page = free_name(Path(f"{stem}-zones.html")) if out is None else expanded(out)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out: {page}; expected a name that ends in .html")
    check_output(page, overwrite)
    still = _still(name, at)
    saved = f"{stem}-zones.yaml" if file is None else Path(file).name
    command = shlex.join(["lookonce", "detect", "coco", name, "--zones", saved])
    write_zones_page(page, ZonesPage(name, still, known, saved, command))
    if browser and has_display():
        webbrowser.open(page.resolve().as_uri())
    return Drawing(page, saved, command)


def has_display() -> bool:
    """Return whether a browser can open a window here: elsewhere it would take over the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _still(name: str, at: float) -> Image.Image:
    """Return the first frame from a time on, or an image. Raises UserError if there is none."""
    if kind_of(name) is None:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{name}: no such file; expected a video, an image, a camera or a stream")
        return Image.fromarray(load_rgb(path))
    with closing(iter(Source(name, Sampling(start=at)))) as frames:  # type: ignore[type-var]
        frame = next(frames, None)
    if frame is None:
        raise UserError(f"at: {at:g} s; {name} ends before")
    return Image.fromarray(frame.pixels)
