"""Detector: images in, Detections out."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from io import BufferedIOBase
from itertools import chain, islice
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from lookonce.choices import choose
from lookonce.data.images import BATCH, WAITING, Decoded, ImageSource, Opened, load_for, load_rgb, open_ahead
from lookonce.data.tiles import AUTO, OVERLAP, Tile, TileSize, Tiling, auto_tile, check_overlap, read_tile
from lookonce.errors import ConfigError, ImageError, plural, printable
from lookonce.files import file_digest
from lookonce.inference.backends.open import Backend, model_files, open_backend
from lookonce.inference.backends.settings import BackendName, Precision, Settings
from lookonce.inference.pretrained_models import model_name, model_path
from lookonce.inference.tiles import merged
from lookonce.model.detections import Detections, Predictions
from lookonce.model.heads import decode
from lookonce.model.postprocess import DIOU_EXPONENT, PLAIN_THRESHOLD, Nms, Selection, postprocess
from lookonce.model.resize import Framed, antialiases, to_bytes, to_input

if TYPE_CHECKING:
    from lookonce.model.model_file import Model


log = logging.getLogger("lookonce")
AHEAD = 2
"""Batches that are given to the network while an earlier one becomes detections: one runs, one waits."""
SHOWN = 5
"""Classes in the one line that shows a detector."""


class Prepared(NamedTuple):
    """An image as the network takes it."""

    pixels: NDArray[np.float32] | Framed  # [3, H, W]; bytes for a GPU
    size: tuple[int, int]  # (width, height) of the whole image as seen


class Detector:
    """Finds objects in images.

    A Detector may be called from several threads at once and after a fork. A copy (pickle, deepcopy) opens the model
    again.

    Args:
        model: Name of a published model ("coco"), model file, run folder, Darknet .cfg with its .weights beside it,
            exported .onnx or .xml, a Model in memory, or an open backend, for which backend, device, precision and
            throughput do not count.
        backend: Library that runs the network; auto: a GPU with PyTorch, else the fastest that is installed; a log line
            names it. OpenVINO and ONNX Runtime convert a model once and keep the result in the cache folder.
        device: cpu, cuda, or tensorrt (onnxruntime only); None: the backend's default.
        precision: fp32, bf16 (boxes within 1 px of fp32), or int8 (its cost in mAP is logged); auto: the fastest that
            the processor supports; int8 only if training or an export left an int8 form beside the model.
        throughput: For many images: OpenVINO runs several at a time.
        threshold: Lowest score of a detection, 0 to 1; None: the model's own thresholds, from its validation.
        iou_threshold: Of two boxes of one class with a higher IoU than this, the better one is kept.
        nms: Non-maximum suppression: iou, or diou, which keeps overlapping boxes whose centres are apart (as of two
            people side by side).
        tree_threshold: Of a model with a tree of classes: probability above which a detection goes on to a child class;
            else it backs off to the parent. None: the model's own.
        tile: For large images: also look at tiles of this size, (width, height) or "640x480" in image pixels; auto: as
            in the model's training, or in which its small objects are large enough. None: at whole images alone.
        overlap: Smallest part of a tile that its neighbour shows too, 0 to below 1.
        flip: Also look at the mirror image and average both: more accurate, at twice the time.
    Raises:
        UserError: a model that cannot be read, a threshold outside 0 to 1, a backend that is not installed, a tile
            below 32 pixels.

    >>> detections = Detector("runs/cells-1")("image.jpg")      # doctest: +SKIP
    >>> detections.boxes, detections.scores, detections.names     # doctest: +SKIP
    """

    def __init__(self, model: Model | Backend | Path | str, backend: BackendName = "auto", *,
                 device: str | None = None, precision: Precision = "auto", throughput: bool = False,
                 threshold: float | None = None, iou_threshold: float = 0.45,
                 nms: Nms = "iou", tree_threshold: float | None = None, tile: str | TileSize | None = None,
                 overlap: float = OVERLAP, flip: bool = False) -> None:  # fmt: skip
        if model is None or isinstance(model, int | float | bytes | list | tuple | dict | np.ndarray):
            raise ConfigError(f"model: {model!r:.60}; expected a model file, a run's folder, or a model in memory")
        if threshold is not None:
            _check_fraction("threshold", threshold)
        _check_fraction("iou_threshold", iou_threshold)
        if tree_threshold is not None:
            _check_fraction("tree_threshold", tree_threshold)
        check_overlap(overlap)
        tile_size = None if tile is None else read_tile(tile)
        source = model_path(model) if isinstance(model, Path | str) else model
        self.file = source if isinstance(source, Path) else None
        if isinstance(source, Backend):
            self.backend: Backend = source
        else:
            self.backend = open_backend(source, Settings(backend, device, precision, throughput))
            log.info("runs on %s", self.backend.info)
        self.about = self.backend.about
        self.batch: int = getattr(self.backend, "batch", BATCH)
        """Images that go through the network together."""
        self.on_device = bool(getattr(self.backend, "takes_bytes", False))
        """Whether inputs become floats, and maps detections, on a GPU."""
        own = self.about.thresholds or (PLAIN_THRESHOLD,) * len(self.about.labels)
        self.thresholds = np.array(own if threshold is None else (threshold,) * len(own))
        tree = self.about.tree
        if tree_threshold is not None:
            if tree is None:
                raise ConfigError("tree_threshold: the classes of this model are no tree; leave it out")
            tree = replace(tree, threshold=float(tree_threshold))
        exponent = DIOU_EXPONENT if choose(nms, get_args(Nms), "nms") == "diou" else None
        self.selection = Selection(float(self.thresholds.min()), iou_threshold, exponent, tree=tree,
                                   views=2 if flip else 1)  # fmt: skip
        if tile_size == AUTO:
            tile_size = auto_tile(self.about.training, self.about.input_size, self.about.resize)
        self.tiling = None if tile_size is None else Tiling(tile_size, float(overlap))
        """How images are cut into tiles; None: they are not."""
        if self.tiling is not None:
            log.info("%s", self.tiling)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the model: model.safetensors of a run, all of Darknet's, .xml with its .bin; () in memory."""
        return () if self.file is None else model_files(self.file)

    @property
    def name(self) -> str:
        """Name of a published model, or path; empty in memory."""
        return "" if self.file is None else model_name(self.file)

    @property
    def digest(self) -> str | None:
        """ "sha256:..." of the model's files; of a published model of its weights; None in memory."""
        if self.file is not None and self.name != str(self.file):
            return file_digest([self.file])
        return file_digest(self.files)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes that this detector knows."""
        return self.about.labels

    def __repr__(self) -> str:
        """Return one line: the model, its classes, its input and the backend."""
        width, height = self.about.input_size
        classes = ", ".join(map(printable, self.labels[:SHOWN])) + (", ..." if len(self.labels) > SHOWN else "")
        model = f"{printable(self.name)}: " if self.name else ""
        count = plural(len(self.labels), "class")
        return f"Detector({model}{count} ({classes}), input {width} x {height}, {self.backend.info})"

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageSource, *, threshold: float | None = None, labels: str | Sequence[str] | None = None
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: Iterable[ImageSource], *, threshold: float | None = None,
        labels: str | Sequence[str] | None = None,
    ) -> list[Detections]: ...  # fmt: skip

    def __call__(
        self, images: ImageSource | Iterable[ImageSource], *, threshold: float | None = None,
        labels: str | Sequence[str] | None = None,
    ) -> Detections | list[Detections]:  # fmt: skip
        """Detections of one image, or a list of them for several.

        An image is a path, the bytes of a file, a file opened with 'rb', a PIL image (its EXIF rotation is applied),
        or an array or tensor of uint8: [h, w, 3] RGB, [h, w, 4] RGBA, [h, w] or [h, w, 1] grey; uint16 is scaled by
        the model's pixel range. Arrays of OpenCV are BGR: give image[..., ::-1].
        A JPEG file far larger than the input is decoded at a fraction of its size (images.load_for); boxes refer to the
        whole image.

        Args:
            images: one image or several.
            threshold: Lowest score in this call; None: the detector's.
            labels: Names of the classes wanted in this call; None: all.
        Raises:
            ImageError: an image that cannot be read.
            UserError: what is no image, a threshold outside 0 to 1, an unknown class.
        """
        if threshold is not None:
            _check_fraction("threshold", threshold)
        selection = None if threshold is None else replace(self.selection, score_threshold=float(threshold))
        given = [cast(ImageSource, images)] if is_one(images) else list(cast(Iterable[ImageSource], images))
        found = self._detect([self._open(image) for image in given], selection)
        if labels is not None:
            found = [each.only(labels) for each in found]
        found = [
            replace(each, file=str(image)) if isinstance(image, Path | str) else each
            for each, image in zip(found, given, strict=True)
        ]
        return found[0] if is_one(images) else found

    def detect(
        self, images: Sequence[NDArray[np.uint8] | Decoded], selection: Selection | None = None
    ) -> list[Detections]:
        """Return the detections on RGB arrays [h, w, 3] uint8, or images of which fewer pixels are there.

        selection: use these thresholds instead of the detector's own.
        """
        return self._detect(
            [image if isinstance(image, Decoded) else Decoded(image, image.shape[1::-1]) for image in images], selection
        )

    def _detect(self, images: Sequence[Decoded], selection: Selection | None = None) -> list[Detections]:
        return list(self._stream(iter(images), selection))

    def _stream(self, images: Iterator[Decoded], selection: Selection | None) -> Iterator[Detections]:
        """Yield the detections of images in order. Images are taken some batches ahead."""
        taken: deque[tuple[tuple[int, int], list[Tile]]] = deque()  # size and tiles of images that are in the network
        parts = self._parts(self._batches(images, taken), selection)
        for first in parts:
            size, tiles = taken.popleft()
            own = [first, *islice(parts, len(tiles) - 1)]
            yield first if self.tiling is None else merged(size, tiles, own, selection or self.selection)

    def _batches(
        self, images: Iterator[Decoded], taken: deque[tuple[tuple[int, int], list[Tile]]]
    ) -> Iterator[list[Prepared]]:
        """Yield the inputs of images, of each its tiles. A batch is smaller if its images take much memory."""
        batch: list[Prepared] = []
        size = 0
        for image in images:
            tiles = self._tiles(image.size)
            taken.append((image.size, tiles))
            size += 3 * math.prod(image.decoded_size)
            for tile in tiles:
                batch.append(self._resized(image if self.tiling is None else _part(image, tile)))
                if len(batch) == self.batch:
                    yield batch
                    batch, size = [], 0
            if size > WAITING // (AHEAD + 1) and batch:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _parts(self, batches: Iterator[list[Prepared]], selection: Selection | None) -> Iterator[Detections]:
        """Yield the detections of each input, while a thread runs the network on the batches after it."""
        for batch, raws in self._run(batches):
            sizes = [image.size for image in batch]
            found = self._postprocessed(self._predictions(raws), sizes, selection or self.selection)
            yield from found if selection else (one.above(self.thresholds) for one in found)

    def _run(self, batches: Iterator[list[Prepared]]) -> Iterator[tuple[list[Prepared], Sequence[NDArray[Any]]]]:
        """Yield each batch with its raw maps."""
        first = list(islice(batches, 2))
        if len(first) < 2:  # another thread would only delay it
            yield from ((batch, self._raws(batch)) for batch in first)
            return
        running: deque[tuple[list[Prepared], Future[Sequence[NDArray[Any]]]]] = deque()
        network = ThreadPoolExecutor(1, "network")
        try:
            for batch in chain(first, batches):
                running.append((batch, network.submit(self._raws, batch)))
                if len(running) > AHEAD:
                    done, raws = running.popleft()
                    yield done, raws.result()
            while running:
                done, raws = running.popleft()
                yield done, raws.result()
        finally:
            network.shutdown(cancel_futures=True)

    def _tiles(self, size: tuple[int, int]) -> list[Tile]:
        """Return the parts of an image of (width, height) to look at."""
        return [Tile(0, 0, *size)] if self.tiling is None else self.tiling.of(size)

    def detect_files(
        self, paths: Iterable[Path | str], selection: Selection | None = None
    ) -> Iterator[tuple[str, Opened, Detections]]:
        """Yield (path, image, its detections) of files in order; an ImageError in place of an unreadable image.

        Threads decode images ahead while the network runs; memory holds a few batches of them.
        selection: use these thresholds instead of the detector's own.
        """
        prepare = self._resized if self.tiling is None else lambda _: None
        opened = open_ahead(paths, self._decoded_for, 2 * self.batch, self.about.pixel_range, prepare)
        taken: deque[tuple[str, Opened]] = deque()

        def whole() -> Iterator[Decoded]:
            for path, image in opened:
                taken.append((path, image))
                if not isinstance(image, ImageError):
                    yield image

        nothing = Detections([], [], [], self.labels)  # type: ignore[arg-type]
        for found in self._stream(whole(), selection):
            while isinstance(taken[0][1], ImageError):
                yield *taken.popleft(), nothing
            path, image = taken.popleft()
            yield path, image, replace(found, file=path)
        yield from ((path, error, nothing) for path, error in taken)

    @property
    def _decoded_for(self) -> tuple[int, int] | None:
        """(width, height) of the input that images are decoded for; None: tiles need them whole."""
        return self.about.input_size if self.tiling is None else None

    def _open(self, image: ImageSource) -> Decoded:
        if isinstance(image, Path | str | bytes | BufferedIOBase):
            return load_for(image, self._decoded_for, self.about.pixel_range)
        pixels = load_rgb(image, pixel_range=self.about.pixel_range)
        return Decoded(pixels, pixels.shape[1::-1])

    def prepare(self, image: ImageSource) -> Prepared:
        """Return an image resized to the network's input, for detect_prepared. Raises as a call does."""
        return self._resized(self._open(image))

    def detect_prepared(self, images: Sequence[Prepared], selections: Sequence[Selection]) -> list[Detections]:
        """Return the detections of a batch of prepared images. selections: the thresholds of each image."""
        whole = self._predictions(self._raws(images))
        found: dict[int, Detections] = {}
        for selection in dict.fromkeys(selections):  # mostly one
            own = [n for n, one in enumerate(selections) if one == selection]
            part = whole if len(own) == len(images) else Predictions(whole.boxes[own], whole.objectness[own],
                                                                     whole.class_prob[own])  # fmt: skip
            sizes = [images[n].size for n in own]
            found |= zip(own, self._postprocessed(part, sizes, selection), strict=True)
        return [found[n] for n in range(len(images))]

    def _resized(self, image: Decoded) -> Prepared:
        if isinstance(image.prepared, Prepared):  # by detect_files
            return image.prepared
        is_bytes = self.on_device and antialiases(self.about.resize) and self.selection.views == 1
        to = to_bytes if is_bytes else to_input
        return Prepared(to(image.image, self.about.input_size, self.about.resize), image.size)

    def _raws(self, images: Sequence[Prepared]) -> Sequence[NDArray[Any]]:
        """Return the raw maps of all views: arrays, or tensors of a GPU, which may still compute them."""
        run = cast(Any, self.backend).maps if self.on_device else self.backend
        pixels: list[Any] = [image.pixels for image in images]
        if self.selection.views > 1:
            pixels += [np.ascontiguousarray(one[..., ::-1]) for one in pixels]
        found: Sequence[NDArray[Any]] = run(pixels)
        return found

    def _postprocessed(
        self, predictions: Predictions[NDArray[Any]], sizes: Sequence[tuple[int, int]], selection: Selection
    ) -> list[Detections]:
        """Return the detections of a batch. The number of views is the detector's."""
        about, own = self.about, replace(selection, views=self.selection.views)
        return postprocess(predictions, sizes, about.input_size, about.resize, about.labels, own)

    def _predictions(self, raws: Sequence[NDArray[Any]]) -> Predictions[NDArray[Any]]:
        whole = decode(raws, self.about.heads, self.about.tree)
        if self.selection.views == 1:
            return whole
        images = len(whole.boxes) // 2
        seen, mirrored = (Predictions(whole.boxes[part], whole.objectness[part], whole.class_prob[part])
                          for part in (slice(images), slice(images, None)))  # fmt: skip
        return seen.followed_by_mirrored(mirrored, self.about.input_size[0])


def _part(image: Decoded, tile: Tile) -> Decoded:
    """Return a tile of an image that was decoded whole."""
    return Decoded(tile.crop(image.pixels), (tile.width, tile.height))


def is_one(images: ImageSource | Iterable[ImageSource]) -> bool:
    """Return whether this is one image, not several. Arrays, tensors, bytes and files can be iterated as well."""
    several = isinstance(images, Iterable) and not isinstance(images, str | bytes | bytearray | np.ndarray)
    return not several or hasattr(images, "read") or hasattr(images, "detach")


def _check_fraction(name: str, value: object) -> None:
    """Raise ConfigError for anything but a number from 0 to 1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
        raise ConfigError(f"{name}: {value!r}; expected a number from 0 to 1")
