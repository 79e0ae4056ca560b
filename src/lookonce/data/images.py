"""Image files and images in memory: their size, their pixels as RGB, and whether they are complete.

Reading, checking, training and detection all open an image with `_opening`, so they agree about it. Images are upright
everywhere, by their orientation in EXIF or XMP: sizes and boxes are those of the image as seen. Images of more than
8 bits a value become bytes by one pixel range per data set, which its models keep.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import struct
import threading
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from lookonce.data.image_metadata import PNG_START, has_end, orientation, png_chunks
from lookonce.data.tars import open_file, split_tar
from lookonce.errors import ImageError, UserError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("lookonce")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or its log lines on damaged TIFFs reach stderr

IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc",
    ".fli", ".ftc", ".ftu", ".gbr", ".gif", ".heic", ".heif", ".hif", ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k",
    ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm",
    ".pgm", ".png", ".pnm", ".ppm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff",
    ".vda", ".vst", ".webp", ".xbm", ".xpm",
})  # fmt: skip
"""Endings of image files, in any case: all that Pillow decodes, and HEIC. Written out, since asking Pillow for them
imports every plugin; a test compares them."""
FORMATS = frozenset({
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF", "HEIF", "ICNS", "ICO", "IM",
    "JPEG", "JPEG2000", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP",
    "XBM", "XPM",
})  # fmt: skip
"""Formats that are read, as Pillow names them: those that it decodes itself and that have an ending. Not among them:
EPS, a program that Ghostscript would run; stubs without a decoder; whatever other packages add to Pillow."""
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
MOST_PIXELS = 200_000_000
"""A larger image is refused before it is decoded: it would take over 600 MB as RGB. Pillow's own limit is not used."""
BYTES_A_PIXEL = 14
"""Memory that decoding takes at its peak, for each pixel of the file."""
DECODING, WAITING = 3 << 30, 1 << 30
"""Most bytes that images take together while threads decode them, and while they wait for the network. An image that
takes more is alone."""
ALWAYS_DECODED, PIXELS_A_BYTE = 10_000_000, 5000
"""A larger image than ALWAYS_DECODED pixels with more than PIXELS_A_BYTE pixels for each byte of its file has a false
header. A blank PNG has about 350."""
BATCH = 8
"""Images that go through a network together in detection."""
ENOUGH = 2
"""An image decoded for a network has a shorter side of at least this times the longer side of the input."""
FLAT = 2.0
"""An image whose grey values have a smaller standard deviation (of 255) shows nothing."""
DIM = 32
"""An image of more than 8 bits whose bytes have a smaller spread is nearly flat: its pixel range is wrong."""
MEASURED = 100
"""Images from which the pixel range of a data set is measured, and values of each, in thousands; at most."""
OUTLIERS = (0.1, 99.9)
"""Percentiles of a data set's values that become black and white."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, struct.error,
              zlib.error, Image.DecompressionBombError, MemoryError, RuntimeError)  # fmt: skip
"""What Pillow raises for a damaged file."""
EXPECTED = (
    "an image is a path, the bytes of a file, a file opened with 'rb', a PIL image, or an array or tensor: "
    "uint8 (or uint16, or bool), [h, w, 3] RGB, [h, w, 4] RGBA, [h, w] or [h, w, 1] grey; "
    "arrays of OpenCV are BGR: give image[..., ::-1]"
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF orientation -> the operation that makes the image upright."""
ImageSource: TypeAlias = "Path | str | bytes | BinaryIO | Image.Image | NDArray[np.generic] | Tensor"
"""What is accepted as an image."""
PixelRange: TypeAlias = tuple[float, float]
"""The values of images of more than 8 bits that become black and white; values between are scaled, others clipped."""


@dataclass(frozen=True)
class Decoded:
    """An image as a network needs it."""

    image: Image.Image | NDArray[np.uint8]
    """RGB, upright: as Pillow decodes it, which is quicker to resize, or [h, w, 3]."""
    size: tuple[int, int]
    """(width, height) of the whole image as seen; its pixels can be fewer."""
    prepared: Any = None
    """What open_ahead's `prepare` made of it."""

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """[h, w, 3] RGB, upright."""
        return np.array(self.image)

    @property
    def decoded_size(self) -> tuple[int, int]:
        """(width, height) of its pixels."""
        return self.image.size if isinstance(self.image, Image.Image) else self.image.shape[1::-1]

    @property
    def reduced(self) -> bool:
        """Decoded at less than its size."""
        return self.decoded_size != self.size


Opened: TypeAlias = "Decoded | ImageError"
"""An image, or why it cannot be read."""


def load_rgb(
    source: ImageSource, reduce_to: int | None = None, pixel_range: PixelRange | None = None
) -> NDArray[np.uint8]:
    """Return an image as RGB, upright.

    Args:
        source: what EXPECTED lists; of a file with several images the first.
        reduce_to: longest side, pixels; a larger image is reduced, antialiased.
        pixel_range: for images of more than 8 bits; None: 0 to 1 for floats up to 1, 0 to 255 for values up to
            255, else 0 to 65535.
    Returns:
        [h, w, 3] uint8. Transparent parts become white.
    Raises:
        ImageError: a file that is not an image, is incomplete, or is too large.
        UserError: anything else than an image.
    """
    if isinstance(source, Image.Image):
        with _readable(source):
            if source.format not in (None, "MPO", *FORMATS):
                raise OSError(f"{source.format} is not read; save it as PNG")
            _check_size(source.size, None, _name(source))
            source.load()
            return _upright_rgb(source, orientation(source.info), reduce_to, pixel_range, _name(source))
    if isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(source, "read"):
        with _opening(source) as (image, size, turn):
            if reduce_to and max(size) > reduce_to:
                image.draft("RGB", _shrunk(image.size, reduce_to))
            with _memory.share(image.size):
                return _upright_rgb(image, turn, reduce_to, pixel_range, _name(source))
    pixels = _from_array(source, pixel_range)
    if reduce_to and max(pixels.shape[:2]) > reduce_to:
        return np.array(_reduced(Image.fromarray(pixels), reduce_to))
    return pixels


def load_for(source: Path | str | bytes | BinaryIO, input_size: tuple[int, int] | None,
             pixel_range: PixelRange | None = None) -> Decoded:  # fmt: skip
    """Return a file as RGB, upright, not much larger than a network's input.

    A far larger JPEG is decoded at a half, a quarter or an eighth of its size, which is faster and averages the pixels;
    its shorter side stays at least ENOUGH times the input's longer one. Other formats are decoded in full.

    Args:
        source: a path, the bytes of a file, or a file opened with 'rb'.
        input_size: (width, height) of the network's input, pixels; None: decode every file in full.
        pixel_range: as in load_rgb.
    Raises:
        ImageError: as in load_rgb.
    """
    with _opening(source) as (image, size, turn):
        if input_size is not None:
            least = ENOUGH * max(input_size)
            image.draft("RGB", (least, least))
        with _memory.share(image.size):
            return Decoded(_upright(image, turn, None, pixel_range, _name(source)), size)


def image_size(source: Path | str | bytes) -> tuple[int, int]:
    """Return (width, height) as seen, from the header alone. Raises ImageError for what is not an image."""
    with _opening(source) as (_, size, _):
        return size


def inspect(path: Path | str) -> tuple[int, int]:
    """Return (width, height) as seen of a complete file: its end is there, or it decodes without it.

    Raises ImageError for a missing or incomplete file, and for what is not an image.
    """
    size = image_size(path)
    with open_file(path) as file:
        whole = has_end(file)
    if not whole:
        with _opening(path) as (image, _, _):
            image.draft("L", (1, 1))
            image.load()
    return size


def open_ahead(paths: Iterable[Path | str], input_size: tuple[int, int] | None, ahead: int = 2 * BATCH,
               pixel_range: PixelRange | None = None,
               prepare: Callable[[Decoded], object] = lambda _: None) -> Iterator[tuple[str, Opened]]:  # fmt: skip
    """Yield (path, image or its error) in the given order, while threads decode the next `ahead` images.

    Fewer are decoded ahead if they are so large that they would take more than WAITING bytes.
    input_size: (width, height) of the network's input that they are for; None: decode them in full.
    prepare: called in a thread with each image, which keeps what it returns.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        coming: deque[tuple[str, int, Future[Opened]]] = deque()  # path, bytes, image
        try:
            for path in paths:
                size = _bytes_of(path)
                while coming and size + sum(each for _, each, _ in coming) > WAITING:
                    name, _, future = coming.popleft()
                    yield name, future.result()
                coming.append((str(path), size, pool.submit(_opened, path, input_size, pixel_range, prepare)))
                if len(coming) > ahead:
                    name, _, future = coming.popleft()
                    yield name, future.result()
            while coming:
                name, _, future = coming.popleft()
                yield name, future.result()
        finally:
            for *_, future in coming:
                future.cancel()


def _bytes_of(path: Path | str) -> int:
    """Return the bytes of an image as RGB at full size, from its header; 0 for what cannot be read."""
    try:
        return 3 * math.prod(image_size(path))
    except ImageError:
        return 0


class _Memory:
    """The memory that all threads together take for decoding."""

    def __init__(self) -> None:
        self._taken, self._freed = 0, threading.Condition()

    @contextmanager
    def share(self, size: tuple[int, int]) -> Iterator[None]:
        """Wait until the memory for an image of (width, height) is free, and take it until the block ends."""
        count = BYTES_A_PIXEL * math.prod(size)
        with self._freed:
            self._freed.wait_for(lambda: not self._taken or self._taken + count <= DECODING)
            self._taken += count
        try:
            yield
        finally:
            with self._freed:
                self._taken -= count
                self._freed.notify_all()


_memory = _Memory()
if hasattr(os, "register_at_fork"):  # the threads that hold its memory stay in the parent
    os.register_at_fork(after_in_child=_memory.__init__)  # type: ignore[misc]


def _opened(path: Path | str, input_size: tuple[int, int] | None, pixel_range: PixelRange | None,
            prepare: Callable[[Decoded], object]) -> Opened:  # fmt: skip
    try:
        image = load_for(path, input_size, pixel_range)
        return replace(image, prepared=prepare(image))
    except ImageError as error:
        return error


_most_cores: int | None = None


def limit_cores(most: int) -> None:
    """Let this process use at most so many cores: its share, as one of several workers."""
    global _most_cores
    _most_cores = most


def usable_cores() -> int:
    """Return the number of cores that this process may use: by its affinity (taskset, a batch system, a container)."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return min(cores, _most_cores or cores)


def is_flat(pixels: NDArray[np.uint8]) -> bool:
    """Return whether an image [h, w, ...] shows nothing: its values hardly differ."""
    return bool(pixels.std() <= FLAT)


def measure_range(paths: Sequence[Path]) -> PixelRange | None:
    """Return the pixel range of a data set: one rule for all its images of more than 8 bits.

    0 to 1 where floats lie in it; 0 to 255 where all values lie in it; else from the 0.1 to the 99.9 percentile of the
    values. None where no image has more than 8 bits: bytes are never changed.
    paths: its training images; at most MEASURED of them, evenly spaced, are read.
    """
    found = [v for path in paths[:: -(-len(paths) // MEASURED) or 1] if (v := _deep_values(path)) is not None]
    values = np.concatenate(found) if found else np.zeros(0)
    if not len(values):
        return None
    if values.min() >= 0 and values.max() <= 255:
        return (0.0, 1.0) if values.max() <= 1 and any(v.dtype.kind == "f" for v in found) else (0.0, 255.0)
    low, high = (float(v) for v in np.percentile(values, OUTLIERS))
    return (low, high) if high > low else (low, low + 1)


def _deep_values(path: Path) -> NDArray[np.generic] | None:
    """Return some finite values of an image of more than 8 bits; None for others and for unreadable ones."""
    try:
        with _opening(path) as (image, _, _):
            if not _is_deep(image):
                return None
            values = np.asarray(image).ravel()
    except ImageError:
        return None
    values = values[:: -(-len(values) // (1000 * MEASURED))]
    finite: NDArray[np.generic] = values[np.isfinite(values)]
    return finite


@contextmanager
def _opening(source: ImageSource) -> Iterator[tuple[Image.Image, tuple[int, int], int]]:
    """Open a file: (image, its (width, height) as seen, the orientation still to be applied), until the block ends."""
    with _readable(source), _stream(source) as file:
        length = file.seek(0, os.SEEK_END)
        image = _identify(file, length)
        _check_size(image.size, length, _name(source))
        yield image, *_as_seen(image, file)


@contextmanager
def _readable(source: object) -> Iterator[None]:
    """Turn whatever Pillow raises in the block into an ImageError, and keep Pillow's warnings from the user."""
    try:
        with _quiet():
            yield
    except UNREADABLE as error:
        if isinstance(error, UserError):
            raise
        raise ImageError(_name(source), _reason(source, error)) from None


_quiet_lock = threading.Lock()
_quiet_count = 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore Pillow's warnings while any thread is in here.

    warnings.catch_warnings is not safe in threads: it can restore the filters of another one.
    """
    global _quiet_count
    own = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
    with _quiet_lock:
        if not _quiet_count:
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_count += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_count -= 1
            if not _quiet_count and own in warnings.filters:
                warnings.filters.remove(own)  # type: ignore[attr-defined]


@contextmanager
def _stream(source: Any) -> Iterator[BinaryIO]:
    """Return the file of a source."""
    if isinstance(source, str | os.PathLike):
        with open_file(source) as file:
            yield file
        return
    if hasattr(source, "read"):
        if hasattr(source, "seek") and hasattr(source, "seekable") and source.seekable():
            source.seek(0)
        source = source.read()
    if not isinstance(source, bytes | bytearray | memoryview):
        raise UserError(f"a file that returns {type(source).__name__}; open it with 'rb'")
    yield io.BytesIO(source)


def _identify(file: BinaryIO, length: int) -> Image.Image:
    """Open an image as Image.open does, but without its limit on pixels, and only formats that are images."""
    file.seek(0)
    prefix = file.read(16)
    if prefix[4:8] == b"ftyp" and prefix[8:12] in HEIF_BRANDS:
        _register_heif()
    for prepare in (Image.preinit, Image.init):
        prepare()
        for kind in tuple(Image.ID):
            factory, accept = Image.OPEN[kind]
            if kind == "JPEG":
                factory = JpegImagePlugin.JpegImageFile  # Pillow's own would parse a damaged MPF block behind it
            try:
                if kind in FORMATS and (accept is None or accept(prefix) is True):
                    file.seek(0)
                    return factory(file, "")
            except (SyntaxError, IndexError, TypeError, KeyError, struct.error):
                continue  # another format may begin alike
    raise UnidentifiedImageError(f"{length} bytes")


@cache
def _register_heif() -> None:
    """Let Pillow read HEIC. Raises OSError if the package for it is missing."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise OSError("a HEIC image: install pillow-heif (pip install pillow-heif), or save it as JPEG") from None
    register_heif_opener()


def _as_seen(image: Image.Image, file: BinaryIO) -> tuple[tuple[int, int], int]:
    """Return ((width, height) as seen, orientation still to be applied), from the header alone."""
    width, height = image.size
    if image.format == "PNG":
        file.seek(0)
        place = file.tell()
        if file.read(8) == PNG_START:
            turn = orientation(png_chunks(file)[1])  # Pillow knows chunks behind the pixels only after decoding
        file.seek(place)
    else:
        turn = orientation(image.info)
    if image.format == "TIFF":  # Pillow turns the pixels itself, and the size where the tag says so
        tagged = 274 in getattr(image, "tag_v2", ())
        return ((height, width) if turn > 4 and not tagged else (width, height)), 1
    return ((height, width) if turn > 4 else (width, height)), turn


def _check_size(size: tuple[int, int], length: int | None, name: str) -> None:
    """Refuse an image that is too large, or that a file of so many bytes cannot hold."""
    width, height = size
    pixels = width * height
    if pixels > MOST_PIXELS:
        raise ImageError(name, f"{width} x {height} pixels; at most {MOST_PIXELS:,} in all, so reduce it")
    if length is not None and pixels > max(ALWAYS_DECODED, PIXELS_A_BYTE * length):
        raise ImageError(name, f"says {width} x {height} pixels in {length:,} bytes, so its header is damaged")


def _from_array(given: object, pixel_range: PixelRange | None) -> NDArray[np.uint8]:
    """Return an array or tensor as RGB. Raises UserError for anything else."""
    if given is None:
        raise UserError(f"None is not an image (cv2.imread returns None for a file that it cannot read); {EXPECTED}")
    if type(given).__module__.partition(".")[0] == "torch" and hasattr(given, "detach"):
        array = given.detach().cpu().numpy()
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
            array = array.transpose(1, 2, 0)
    elif isinstance(given, np.ndarray):
        array = given
    else:
        raise UserError(f"{type(given).__name__} {str(given)[:40]!r} is not an image; {EXPECTED}")
    shape, kind = array.shape, array.dtype
    good = array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3, 4))
    if not good or not array.size or kind not in (np.uint8, np.uint16, np.bool_):
        hint = "; floats of 0 to 1: give (255 * image).round() as uint8" if kind.kind == "f" else ""
        raise UserError(f"an image as {type(given).__name__} of {kind} {list(shape)}; {EXPECTED}{hint}")
    if kind == np.bool_:
        array = array * np.uint8(255)
    elif kind == np.uint16:
        array = _scaled(array, pixel_range, "the image")
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] == 4:
        return np.array(_on_white(Image.fromarray(np.ascontiguousarray(array))))
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), np.uint8, order="C")


def _upright_rgb(image: Image.Image, turn: int, reduce_to: int | None, pixel_range: PixelRange | None,
                 name: str) -> NDArray[np.uint8]:  # fmt: skip
    return np.array(_upright(image, turn, reduce_to, pixel_range, name))


def _upright(image: Image.Image, turn: int, reduce_to: int | None, pixel_range: PixelRange | None,
             name: str) -> Image.Image:  # fmt: skip
    """Return an image as RGB, decoded and upright. reduce_to, pixel_range: as in load_rgb."""
    image.load()
    if _is_deep(image):
        image = Image.fromarray(_scaled(np.asarray(image), pixel_range, name))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if reduce_to and max(rgb.size) > reduce_to:
        rgb = _reduced(rgb, reduce_to)
    return rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb


def _is_deep(image: Image.Image) -> bool:
    """Return whether its values have more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def _on_white(image: Image.Image) -> Image.Image:
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def _shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    longest = max(size)
    return max(1, round(size[0] * side / longest)), max(1, round(size[1] * side / longest))


def _reduced(image: Image.Image, side: int) -> Image.Image:
    return image.resize(_shrunk(image.size, side), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _scaled(values: NDArray[np.generic], pixel_range: PixelRange | None, name: str) -> NDArray[np.uint8]:
    """Return values of more than 8 bits as bytes: black at the range's start, white at its end."""
    with np.errstate(invalid="ignore"):
        floats = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        low, high = pixel_range or _usual_range(floats, values.dtype.kind == "f")
        bytes_ = np.rint((np.clip(floats, low, high) - low) * (255 / (high - low))).astype(np.uint8)
    if int(bytes_.max()) - int(bytes_.min()) < DIM and floats.max() > floats.min():
        _warn_flat(name, f"{floats.min():g} to {floats.max():g}", f"{low:g} to {high:g}")
    return bytes_


def _usual_range(values: NDArray[np.float64], floating: bool) -> PixelRange:
    """Return the range of an image that belongs to no data set."""
    most = values[np.isfinite(values)].max(initial=0)
    return (0.0, 1.0) if floating and most <= 1 else (0.0, 255.0) if most <= 255 else (0.0, 65535.0)


_flat_warned: set[str] = set()


def _warn_flat(name: str, values: str, pixel_range: str) -> None:
    """Warn of an image that becomes nearly flat, once for each range."""
    if pixel_range not in _flat_warned:
        _flat_warned.add(pixel_range)
        log.warning(
            "%s: its values, %s, are nearly flat in the pixel range %s, so little can be seen; a model trained on such "
            "images keeps their range (train --pixel-range). Other such images are not reported",
            name, values, pixel_range,
        )  # fmt: skip


def _name(source: object) -> str:
    """Return what messages call a source."""
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "filename", "") or getattr(source, "name", "")) or "the image"


def _reason(source: object, error: BaseException) -> str:
    if isinstance(source, str | os.PathLike) and (found := _wrong_path(Path(source))):
        return found
    message = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):  # in a tar
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return _unknown(source)
    if isinstance(error, Image.DecompressionBombError):
        return f"too many pixels; at most {MOST_PIXELS:,} in all, so reduce it"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it; reduce it"
    if "truncated" in message or "broken" in message.lower() or isinstance(error, EOFError):
        return "the image is incomplete: the file ends too early; copy it again or remove it"
    return message if "pillow-heif" in message else f"cannot be decoded ({message[:120]})"


def _wrong_path(path: Path) -> str | None:
    """Return why there is no file to decode, or None."""
    if (inside := split_tar(path)) and inside[0].exists():
        return None
    try:
        if not path.exists():
            return "a web address; download it first" if "://" in str(path) or ":/" in str(path)[2:] else "no such file"
        if path.is_dir():
            return "a folder, not an image"
        return "an empty file, not an image" if path.stat().st_size == 0 else None
    except (OSError, ValueError):  # a name that no file can have
        return "no such file"


def _unknown(source: object) -> str:
    """Return why bytes are not an image."""
    with _stream(source) as file:
        start = file.read(256)
    if not start:
        return "an empty file, not an image"
    text = all(byte in b"\t\n\r\f\b" or byte >= 32 for byte in start)
    return "a text file, not an image" if text else "not an image of a known format, or its start is missing"
