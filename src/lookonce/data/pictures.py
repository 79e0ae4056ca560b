"""Picture files: what they hold as RGB, how large they are, whether they are whole.

One rule for rotation: the EXIF orientation is applied everywhere, so sizes and boxes are those of the picture as seen.
"""

from __future__ import annotations

import glob
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lookonce.errors import PictureError, UserError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
"""Endings of picture files, in any case."""
MOST_PIXELS = 200_000_000
"""A larger picture is refused: it would take over 600 MB as RGB."""
TAIL = 4096
"""Bytes at the end of a file in which its end marker is looked for; cameras append some."""
BATCH = 8
"""Pictures that go through a network together in detection."""
ENOUGH = 2
"""Times the longer side of a network's input: what the shorter side of a picture decoded for it has at least."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError, MemoryError)


class Decoded(NamedTuple):
    """A picture as a network needs it."""

    pixels: NDArray[np.uint8]  # [h, w, 3] RGB, upright
    size: tuple[int, int]  # (width, height) of the whole picture as seen; its pixels can be fewer

    @property
    def reduced(self) -> bool:
        """Decoded at less than its size."""
        return self.pixels.shape[1::-1] != self.size


Opened: TypeAlias = "Decoded | PictureError"
"""A picture, or why it cannot be read."""


def load_rgb(
    picture: Path | str | Image.Image | NDArray[np.generic], reduce_to: int | None = None
) -> NDArray[np.uint8]:
    """A picture as RGB, upright.

    Args:
        picture: a file, a PIL image, or an array [h, w, 3] RGB or [h, w] grey, uint8.
        reduce_to: longest side wanted, pixels; a larger picture is reduced, antialiased.
    Returns:
        [h, w, 3] uint8. Transparent parts lie on white; 16-bit grey is scaled to 8 bits.
    Raises:
        PictureError: a file that is no picture, is cut, or is too large.
        UserError: an array of another kind.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, Image.Image):
        return np.array(_upright_rgb(picture, reduce_to))
    with _opening(picture) as image:
        if reduce_to and max(image.size) > reduce_to:
            image.draft("RGB", _shrunk(image.size, reduce_to))
        return np.array(_upright_rgb(image, reduce_to))


def load_for(path: Path | str, frame: tuple[int, int]) -> Decoded:
    """A file as RGB, upright, no larger than a network's input asks for.

    A JPEG far larger is decoded at a half, a quarter or an eighth, which costs a fraction and averages the pixels that
    the resize would leave out; its shorter side stays ENOUGH times the input's longer one. Others come whole.

    Args:
        path: the file.
        frame: (width, height) of the network's input, pixels.
    Raises:
        PictureError: as of load_rgb.
    """
    least = ENOUGH * max(frame)
    with _opening(path) as image:
        width, height = image.size
        image.draft("RGB", (least, least))
        turned = _turned(image)
        return Decoded(np.array(_upright_rgb(image, None)), (height, width) if turned else (width, height))


def picture_size(path: Path | str) -> tuple[int, int]:
    """(width, height) as seen, from the header alone. Raises PictureError for what is no picture."""
    with _opening(path) as image:
        width, height = image.size
        return (height, width) if _turned(image) else (width, height)


@contextmanager
def _opening(path: Path | str) -> Iterator[Image.Image]:
    """A picture file, open until the block ends; whatever is wrong with it is a PictureError."""
    try:
        with Image.open(path) as image:
            _check_size(image, path)
            yield image
    except UNREADABLE as error:
        if isinstance(error, UserError):
            raise
        raise PictureError(path, _reason(Path(path), error)) from None


def _turned(image: Image.Image) -> bool:
    """Whether it is seen on its side: its EXIF orientation, from the header alone."""
    exif = Image.Exif()
    exif.load(image.info.get("exif") or b"")  # image.getexif() would decode a whole PNG in search of it
    return exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)


def inspect(path: Path | str) -> tuple[int, int]:
    """(width, height) as seen, of a file that begins and ends as its format asks; its pixels are not decoded.

    Raises PictureError for a missing, cut or foreign file.
    """
    size = picture_size(path)
    with open(path, "rb") as file:
        head = file.read(8)
        file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
        tail = file.read()
    marker = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}.get(head[:2])
    if marker is not None and marker not in tail:
        raise PictureError(path, "the picture is cut: its end marker is missing; copy it again or remove it")
    return size


def open_ahead(paths: Iterable[Path | str], frame: tuple[int, int],
               ahead: int = 2 * BATCH) -> Iterator[tuple[str, Opened]]:  # fmt: skip
    """Pictures in the order given, each with its path; those to come are decoded in threads meanwhile.

    Memory holds `ahead` pictures, however many there are. A picture that cannot be read comes as its error.
    frame: (width, height) of the network's input that they are for.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        coming: deque[tuple[str, Future[Opened]]] = deque()
        try:
            for path in paths:
                coming.append((str(path), pool.submit(_opened, path, frame)))
                if len(coming) > ahead:
                    name, future = coming.popleft()
                    yield name, future.result()
            while coming:
                name, future = coming.popleft()
                yield name, future.result()
        finally:
            for _, future in coming:
                future.cancel()


def _opened(path: Path | str, frame: tuple[int, int]) -> Opened:
    try:
        return load_for(path, frame)
    except PictureError as error:
        return error


def find_pictures(pattern: Path | str) -> list[str]:
    """Picture files that a path or pattern means, sorted: a file, a folder (with those below), or "some/*.jpg".

    A file or folder that exists is taken by its name, so `[1]` in it is no pattern. Paths as text: a million of them
    are some 100 MB. Raises UserError where there is none.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        found = list(walk_images(path))
    else:
        found = [name for name in glob.glob(_literal_parts(path), recursive=True) if os.path.isfile(name)]
        if not found:  # "photo[1]*.jpg"
            plain = str(path).replace("[", "[[]")
            found = [name for name in glob.glob(plain, recursive=True) if os.path.isfile(name)]
    if not found:
        raise UserError(
            f"{pattern}: no pictures there; expected a file, a folder of pictures, or a pattern like 'dir/*.jpg'"
        )
    return sorted(found)


def _from_array(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] != 3)
        or not array.size
    ):
        raise UserError(
            f"a picture as array of {array.dtype} {array.shape}; expected uint8, [h, w, 3] RGB or [h, w] grey"
        )
    return np.asarray(array if array.ndim == 3 else np.repeat(array[..., None], 3, -1), np.uint8)


def _check_size(image: Image.Image, path: Path | str) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise PictureError(path, f"{image.width} x {image.height} pixels; at most {MOST_PIXELS:,} in all, so reduce it")


def _shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    longest = max(size)
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


def _upright_rgb(image: Image.Image, reduce_to: int | None) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    elif upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    rgb = upright.convert("RGB")
    if reduce_to and max(rgb.size) > reduce_to:
        rgb = rgb.resize(_shrunk(rgb.size, reduce_to), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits: by 257 where values exceed a byte, as a viewer shows them."""
    values = np.asarray(image, np.float64)
    if values.max(initial=0) > 255:
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _reason(path: Path, error: BaseException) -> str:
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder, not a picture"
    size = path.stat().st_size
    if size == 0:
        return "an empty file, not a picture"
    if isinstance(error, UnidentifiedImageError):
        with path.open("rb") as file:
            text = all(byte in b"\t\n\r\f\b" or byte >= 32 for byte in file.read(256))
        return "a text file, not a picture" if text else "not a picture of a known format, or cut at its start"
    if "truncated" in str(error) or "broken" in str(error).lower():
        return "the picture is cut: it ends too early; copy it again or remove it"
    return f"cannot be decoded ({' '.join(str(error).split())[:120]})"


def _literal_parts(path: Path) -> str:
    """The pattern with every folder that exists under its own name escaped."""
    base, parts = Path(path.anchor), path.parts[bool(path.anchor) :]
    escaped = []
    for part in parts:
        base = base / part
        escaped.append(glob.escape(part) if base.exists() else part)
    return os.path.join(path.anchor, *escaped)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name holds no data: it begins with a dot, or is macOS's __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def walk_files(
    root: Path | str, enters: Callable[[tuple[str, ...]], bool] = lambda _: True
) -> Iterator[tuple[str, list[str]]]:
    """Walk a folder and those below it: (folder, names of the files in it), both sorted, hidden names left out.

    Links to folders are followed after everything else. No folder is visited twice, so loops end.

    Args:
        root: the folder.
        enters: whether to go into a folder, by the parts of its path below the root.
    """
    seen: set[str] = set()
    waiting: list[tuple[str, tuple[str, ...]]] = [(str(root), ())]
    links: deque[tuple[str, tuple[str, ...]]] = deque()
    while waiting or links:
        folder, parts = waiting.pop() if waiting else links.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listed:
                entries = sorted((entry for entry in listed if not is_hidden(entry.name)), key=lambda e: e.name)
        except OSError:
            continue  # it cannot be read, so nothing is found in it
        names: list[str] = []
        below: list[tuple[str, tuple[str, ...]]] = []
        for entry in entries:
            if not _is_folder(entry):
                names.append(entry.name)
            elif enters((*parts, entry.name)):
                (links if entry.is_symlink() else below).append((entry.path, (*parts, entry.name)))
        waiting += reversed(below)
        yield folder, names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def walk_images(root: Path | str) -> Iterator[str]:
    """Image files in a folder and below it, sorted within each folder, as walk_files finds them."""
    for folder, names in walk_files(root):
        for name in names:
            if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES:
                yield os.path.join(folder, name)
