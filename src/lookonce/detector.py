"""Detector: pictures in, Detections out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.pictures import BATCH, Opened, load_rgb, open_ahead
from lookonce.detections import Detections
from lookonce.errors import ConfigError, PictureError
from lookonce.model_file import Model, load_model
from lookonce.postprocess import PLAIN_THRESHOLD, Selection, postprocess
from lookonce.region import decode
from lookonce.resize import resize
from lookonce.runtimes.torch import TorchRuntime

Picture = Path | str | Image.Image | NDArray[np.generic]
RuntimeName = Literal["auto", "torch"]


class Detector:
    """Finds objects on pictures.

    Args:
        model: a model file, a run folder, a Darknet .cfg beside its .weights, or a Model in memory.
        runtime: what runs the network; auto takes the fastest at hand.
        threshold: lowest score of a detection, 0 to 1; None: the model's own, found on its validation pictures.
        iou_threshold: of two boxes of one class that overlap more than this, the better stays.
    Raises:
        UserError: a model that cannot be read, or a threshold outside its law.

    >>> detections = Detector("runs/cells-1")("picture.jpg")      # doctest: +SKIP
    >>> detections.boxes, detections.scores, detections.names     # doctest: +SKIP
    """

    def __init__(self, model: Model | Path | str, runtime: RuntimeName = "auto", *,
                 threshold: float | None = None, iou_threshold: float = 0.45) -> None:  # fmt: skip
        if runtime not in ("auto", "torch"):
            raise ConfigError(f"runtime: {runtime!r}; expected auto or torch")
        self.model = model if isinstance(model, Model) else load_model(model)
        own = self.model.thresholds or (PLAIN_THRESHOLD,) * len(self.model.labels)
        self.thresholds = np.array(own if threshold is None else (threshold,) * len(own))
        self.selection = Selection(float(self.thresholds.min()), iou_threshold)
        self.runtime = TorchRuntime(self.model)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes that this detector knows."""
        return self.model.labels

    @overload
    def __call__(self, pictures: Picture) -> Detections: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, pictures: Sequence[Picture]) -> list[Detections]: ...

    def __call__(self, pictures: Picture | Sequence[Picture]) -> Detections | list[Detections]:
        """Detections of one picture, or a list of them for a list.

        A picture is a file, a PIL image (its EXIF rotation is applied) or an array [h, w, 3] RGB or [h, w] grey, uint8.
        Raises PictureError for one that cannot be read.
        """
        if isinstance(pictures, Path | str | Image.Image | np.ndarray):
            return self.detect([load_rgb(pictures)])[0]
        return self.detect([load_rgb(picture) for picture in pictures])

    def detect(self, pictures: Sequence[NDArray[np.uint8]], selection: Selection | None = None) -> list[Detections]:
        """Detections on RGB arrays [h, w, 3] uint8, BATCH at a time.

        selection: take these in place of the detector's own thresholds.
        """
        found: list[Detections] = []
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            found += self._batch(part, selection or self.selection)
        return found if selection else [one.above(self.thresholds) for one in found]

    def detect_files(
        self, paths: Iterable[Path | str], selection: Selection
    ) -> Iterator[tuple[str, Opened, Detections]]:
        """(path, picture, its detections) of files, in order; a picture that cannot be read comes as its error.

        Pictures are decoded ahead, in threads, while the network runs; memory holds a few batches of them.
        """
        opened = open_ahead(paths)
        nothing = Detections([], [], [], self.labels)  # type: ignore[arg-type]
        while batch := list(islice(opened, BATCH)):
            whole = [picture for _, picture in batch if not isinstance(picture, PictureError)]
            found = iter(self.detect(whole, selection))
            for path, picture in batch:
                yield path, picture, nothing if isinstance(picture, PictureError) else next(found)

    def _batch(self, pictures: Sequence[NDArray[np.uint8]], selection: Selection) -> list[Detections]:
        model = self.model
        sizes = [(picture.shape[1], picture.shape[0]) for picture in pictures]
        inputs = torch.stack([to_input(picture, model.frame, model.resize) for picture in pictures])  # [B, 3, H, W]
        predictions = decode(self.runtime(inputs), torch.tensor(model.region.anchors), model.network.stride,
                             model.region.softmax, model.tree)  # fmt: skip
        return postprocess(predictions, sizes, model.frame, model.resize, model.labels, selection)


def to_input(picture: NDArray[np.uint8], frame: tuple[int, int], mode: Literal["letterbox", "stretch"]) -> torch.Tensor:
    """A picture [h, w, 3] uint8 RGB as the network's input [3, H, W], floats 0..1. frame: (W, H)."""
    image = torch.from_numpy(picture).permute(2, 0, 1).float() / 255  # [3, h, w]
    return resize(image, frame, mode)
