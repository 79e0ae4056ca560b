"""Canvases: pictures reduced once, antialiased, and kept as uint8 in one file that all workers share.

Reading is a copy out of the page cache; decoding happens once a picture, when it is first asked for.
"""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.pictures import load_rgb
from lookonce.data.record import Dataset
from lookonce.errors import PictureError

log = logging.getLogger("lookonce")

READY, FAILED = 1, 2
DISK_SHARE = 0.5
"""Of the free disk, what canvases may take: checkpoints need room too."""


def canvas_sizes(sizes: NDArray[np.integer], side: int) -> NDArray[np.int64]:
    """[M, 2] sizes of pictures reduced so that no side exceeds `side`; smaller ones stay as they are."""
    shrink = np.minimum(1.0, side / sizes.max(-1, keepdims=True))
    return np.asarray(np.maximum(np.rint(sizes * shrink), 1), np.int64)


class Canvases:
    """The canvases of a data set.

    Args:
        dataset: the pictures.
        side: longest side of a canvas, pixels.
        folder: where the file is kept; None: every picture is decoded each time it is read.
    """

    def __init__(self, dataset: Dataset, side: int, folder: Path | None) -> None:
        self.dataset, self.side = dataset, side
        self.sizes = canvas_sizes(dataset.sizes, side)
        bytes_each = self.sizes.prod(-1) * 3
        self.first = np.concatenate(([0], bytes_each.cumsum()))
        self.file = None if folder is None else folder / "canvas.u8"
        self.state_file = None if folder is None else folder / "canvas.state"
        if self.file is not None:
            self._create()

    def _create(self) -> None:
        assert self.file is not None
        assert self.state_file is not None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.file.parent).free
            if self.first[-1] > free * DISK_SHARE:
                raise OSError(errno.ENOSPC, f"canvases of {self.first[-1] / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
            for file, size in ((self.file, int(self.first[-1])), (self.state_file, len(self.sizes))):
                with file.open("wb") as handle:
                    handle.truncate(max(size, 1))
        except OSError as error:
            log.warning("%s: %s; pictures are decoded in every epoch", self.file, error.strerror)
            self.file = self.state_file = None

    def read(self, index: int) -> NDArray[np.uint8]:
        """Canvas [h, w, 3] of a picture. Raises PictureError for one that cannot be decoded, each time."""
        if self.file is None or self.state_file is None:
            return self._decode(index)
        width, height = self.sizes[index]
        with self.state_file.open("r+b", buffering=0) as state, self.file.open("r+b", buffering=0) as file:
            state.seek(index)
            known = state.read(1)[0]
            file.seek(int(self.first[index]))
            if known == READY:
                canvas = np.fromfile(file, np.uint8, height * width * 3)
                return canvas.reshape(height, width, 3)
            try:
                canvas = self._decode(index)
            except PictureError:
                state.seek(index)
                state.write(bytes([FAILED]))
                raise
            try:
                if file.write(canvas.tobytes()) == canvas.size:
                    state.seek(index)
                    state.write(bytes([READY]))
            except OSError:
                pass  # a full disk costs speed, not the run: the picture is decoded again next time
            return canvas

    def failed(self) -> list[int]:
        """Pictures that could not be decoded so far."""
        if self.state_file is None:
            return []
        return np.flatnonzero(np.fromfile(self.state_file, np.uint8) == FAILED).tolist()

    def close(self) -> None:
        """Delete the file."""
        for file in (self.file, self.state_file):
            if file is not None:
                file.unlink(missing_ok=True)

    def _decode(self, index: int) -> NDArray[np.uint8]:
        image = load_rgb(self.dataset.records[index].path, self.side, self.dataset.pixel_range)
        width, height = (int(v) for v in self.sizes[index])
        if image.shape[:2] == (height, width):
            return image
        return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
