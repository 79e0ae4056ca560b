"""Detector: pictures in, Detections out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedIOBase
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast, overload

import numpy as np
from numpy.typing import NDArray

from lookonce.data.images import BATCH, Decoded, Opened, Picture, load_for, load_rgb, open_ahead
from lookonce.errors import ConfigError, PictureError
from lookonce.inference.backends.open import Runtime, open_runtime
from lookonce.inference.backends.settings import Precision, RuntimeName, Settings
from lookonce.model.detections import Detections
from lookonce.model.heads.region import decode
from lookonce.model.postprocess import PLAIN_THRESHOLD, Selection, postprocess
from lookonce.model.resize import to_input

if TYPE_CHECKING:
    from lookonce.model.model_file import Model


log = logging.getLogger("lookonce")


class Detector:
    """Finds objects on pictures.

    It may be called from several threads at once and after a fork; a copy (pickle, deepcopy) opens the model anew.

    Args:
        model: a model file, a run folder, a Darknet .cfg beside its .weights, an exported .onnx or .xml, a Model in
            memory, or a runtime that is open already: then the four settings of runtimes below do not count.
        runtime: what runs the network; auto takes the fastest at hand and says which: a GPU, else OpenVINO. For it and
            for onnxruntime a file is converted once, and the cache keeps the converted form (lookonce cache).
        device: None: the runtime's own choice; cpu, cuda, or tensorrt of onnxruntime.
        precision: auto: bf16 where the processor has instructions for it, with boxes within 1 px; else fp32.
        throughput: for many pictures at once: OpenVINO then runs several at a time.
        threshold: lowest score of a detection, 0 to 1; None: the model's own, found on its validation pictures.
        iou_threshold: of two boxes of one class that overlap more than this, the better stays.
    Raises:
        UserError: a model that cannot be read, a threshold outside its law, a runtime that is not there.

    >>> detections = Detector("runs/cells-1")("picture.jpg")      # doctest: +SKIP
    >>> detections.boxes, detections.scores, detections.names     # doctest: +SKIP
    """

    def __init__(self, model: Model | Runtime | Path | str, runtime: RuntimeName = "auto", *,
                 device: str | None = None, precision: Precision = "auto", throughput: bool = False,
                 threshold: float | None = None, iou_threshold: float = 0.45) -> None:  # fmt: skip
        source = Path(model) if isinstance(model, str) else model
        if source is None or isinstance(source, int | float | bytes | list | tuple | dict | np.ndarray):
            raise ConfigError(f"model: {model!r:.60}; expected a model file, a run's folder, or a model in memory")
        if threshold is not None:
            _check_share("threshold", threshold)
        _check_share("iou_threshold", iou_threshold)
        if isinstance(source, Runtime):
            self.runtime: Runtime = source
        else:
            self.runtime = open_runtime(source, Settings(runtime, device, precision, throughput))
            log.info("runs on %s", self.runtime.backend)
        self.about = self.runtime.about
        own = self.about.thresholds or (PLAIN_THRESHOLD,) * len(self.about.labels)
        self.thresholds = np.array(own if threshold is None else (threshold,) * len(own))
        self.selection = Selection(float(self.thresholds.min()), iou_threshold)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes that this detector knows."""
        return self.about.labels

    @overload
    def __call__(self, pictures: Picture) -> Detections: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, pictures: Iterable[Picture]) -> list[Detections]: ...

    def __call__(self, pictures: Picture | Iterable[Picture]) -> Detections | list[Detections]:
        """Detections of one image, or a list of them for several.

        An image is a path, the bytes of a file, a file opened with 'rb', a PIL image (its EXIF rotation is applied),
        or an array or tensor of uint8: [h, w, 3] RGB, [h, w, 4] RGBA, [h, w] or [h, w, 1] grey; uint16 is scaled by
        the model's pixel range. Arrays of OpenCV are BGR: give image[..., ::-1].
        A JPEG file far larger than the input is decoded at a fraction (pictures.load_for); boxes are of the whole.
        Raises PictureError for one that cannot be read, UserError for what is no image.
        """
        if _is_one(pictures):
            return self._detect([self._open(cast(Picture, pictures))])[0]
        return self._detect([self._open(picture) for picture in cast(Iterable[Picture], pictures)])

    def detect(self, pictures: Sequence[NDArray[np.uint8]], selection: Selection | None = None) -> list[Detections]:
        """Detections on RGB arrays [h, w, 3] uint8, BATCH at a time.

        selection: take these in place of the detector's own thresholds.
        """
        return self._detect([Decoded(picture, picture.shape[1::-1]) for picture in pictures], selection)

    def _detect(self, pictures: Sequence[Decoded], selection: Selection | None = None) -> list[Detections]:
        found: list[Detections] = []
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            found += self._batch(part, selection or self.selection)
        return found if selection else [one.above(self.thresholds) for one in found]

    def detect_files(
        self, paths: Iterable[Path | str], selection: Selection | None = None
    ) -> Iterator[tuple[str, Opened, Detections]]:
        """(path, picture, its detections) of files, in order; a picture that cannot be read comes as its error.

        Pictures are decoded ahead, in threads, while the network runs; memory holds a few batches of them.
        selection: take these in place of the detector's own thresholds.
        """
        opened = open_ahead(paths, self.about.frame, pixel_range=self.about.pixel_range)
        nothing = Detections([], [], [], self.labels)  # type: ignore[arg-type]
        while batch := list(islice(opened, BATCH)):
            whole = [picture for _, picture in batch if not isinstance(picture, PictureError)]
            found = iter(self._detect(whole, selection))
            for path, picture in batch:
                yield path, picture, nothing if isinstance(picture, PictureError) else next(found)

    def _open(self, picture: Picture) -> Decoded:
        if isinstance(picture, Path | str | bytes | BufferedIOBase):
            return load_for(picture, self.about.frame, self.about.pixel_range)
        pixels = load_rgb(picture, pixel_range=self.about.pixel_range)
        return Decoded(pixels, pixels.shape[1::-1])

    def _batch(self, pictures: Sequence[Decoded], selection: Selection) -> list[Detections]:
        about = self.about
        sizes = [picture.size for picture in pictures]
        inputs = np.stack([to_input(picture.pixels, about.frame, about.resize) for picture in pictures])  # [B, 3, H, W]
        anchors = np.array(about.region.anchors, np.float32)
        predictions = decode(self.runtime(inputs), anchors, about.stride, about.region.softmax, about.tree)
        return postprocess(predictions, sizes, about.frame, about.resize, about.labels, selection)


def _is_one(pictures: Picture | Iterable[Picture]) -> bool:
    """Whether this is one image, not several: arrays, tensors, bytes and files can be iterated as well."""
    several = isinstance(pictures, Iterable) and not isinstance(pictures, str | bytes | bytearray | np.ndarray)
    return not several or hasattr(pictures, "read") or hasattr(pictures, "detach")


def _check_share(name: str, value: object) -> None:
    """Raises ConfigError for anything but a number of 0 to 1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
        raise ConfigError(f"{name}: {value!r}; expected a number from 0 to 1")


def write_entry(text: TextIO, file: str, found: Detections, first: bool, drawn: str | None = None) -> None:
    """Write one image's detections as an element of a JSON list. first: nothing stands before it.

    drawn: the name of the drawn image, if there is one.
    """
    entry = {"file": file, **({"drawn": drawn} if drawn else {}), "detections": found.to_json()}
    text.write(("" if first else ",") + "\n" + json.dumps(entry))
