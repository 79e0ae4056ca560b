"""The filmstrip of a run: one validation image as the detector saw it after a few epochs, also as training.gif.

The frames are files in the run folder, so that a resumed run continues its filmstrip.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from lookonce.data.dataset import Dataset
from lookonce.data.images import load_rgb
from lookonce.errors import ImageError
from lookonce.evaluation.evaluate import Analysis
from lookonce.files import replacing
from lookonce.inference.draw import draw
from lookonce.model.detections import Detections
from lookonce.report.page import data_uri

FOLDER = "filmstrip"
MOST = 8  # frames that are kept
GIF = "training.gif"
SIDE = 400  # longest side of a frame, px
FRAME_MS, LAST_FRAME_MS = 800, 3000  # how long training.gif shows a frame
THRESHOLD = 0.25  # score of the detections drawn: the same in all frames, so that they can be compared
FEW_OBJECTS = 4  # objects that the image should have: more are too small on a frame


def add_frame(run: Path, epoch: int, dataset: Dataset, analysis: Analysis) -> None:
    """Add a frame after an epoch, remove the one closest to its neighbours if there are too many, and write the GIF."""
    n = subject(dataset)
    if n is None or epoch < 1:
        return
    record = dataset.records[n]
    try:
        pixels = load_rgb(record.path, SIDE, dataset.pixel_range)
    except ImageError:
        return
    image = ImageOps.contain(Image.fromarray(pixels), (SIDE, SIDE))  # a small image is enlarged
    scale, found = image.width / record.size[0], analysis.found
    rows = np.flatnonzero((found.image == n) & (found.score > THRESHOLD))
    seen = Detections(
        (found.boxes[rows] * scale).astype(np.float32), found.score[rows].astype(np.float32), found.label[rows],
        dataset.labels,
    )  # fmt: skip
    truth = record.boxes * scale, [dataset.labels[label] for label in record.labels]
    with replacing(run / FOLDER / f"epoch-{epoch:05}.jpg") as temporary:
        draw(image, seen, truth).save(temporary, "JPEG", quality=85)
    files = _files(run)
    while len(files) > MOST:
        epochs = [math.log(number) for number, _ in files]
        gaps = [epochs[k + 1] - epochs[k - 1] for k in range(1, len(files) - 1)]
        _, file = files.pop(1 + int(np.argmin(gaps)))  # the first and the last stay
        file.unlink(missing_ok=True)
    _write_gif(run)


def subject(dataset: Dataset) -> int | None:
    """Return the image of the filmstrip: the one with the most classes, then with about FEW_OBJECTS objects."""
    counts = np.diff(dataset.first)
    if not counts.any():
        return None
    pairs = np.unique(np.column_stack((dataset.image_of_box, dataset.classes)), axis=0)
    classes = np.minimum(np.bincount(pairs[:, 0], minlength=len(dataset)), FEW_OBJECTS)
    return int(np.lexsort((np.abs(counts - FEW_OBJECTS), -classes))[0])


def read_frames(run: Path) -> list[tuple[int, str]]:
    """Return (epoch, data: address) of each frame, in order."""
    frames = []
    for epoch, file in _files(run):
        try:
            frames.append((epoch, data_uri(Image.fromarray(load_rgb(file, SIDE)))))
        except ImageError:
            continue  # damaged: left out
    return frames


def _write_gif(run: Path) -> None:
    """Write the frames as one animated image, each with the number of its epoch."""
    frames: list[Image.Image] = []
    for epoch, file in _files(run):
        try:
            frame = Image.fromarray(load_rgb(file, SIDE))
        except ImageError:
            continue  # damaged: left out
        if frames:
            frame = frame.resize(frames[0].size)
        ImageDraw.Draw(frame).text(
            (6, frame.height - 6), f"epoch {epoch}", "white", anchor="ls", font_size=18, stroke_width=2,
            stroke_fill="black",
        )  # fmt: skip
        frames.append(frame)
    if frames:
        durations = [FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS]
        with replacing(run / GIF) as temporary:
            frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def _files(run: Path) -> list[tuple[int, Path]]:
    """Return (epoch, file) of the frames, in order of epochs."""
    found = ((re.fullmatch(r"epoch-([0-9]{1,9})\.jpg", file.name), file) for file in (run / FOLDER).glob("*.jpg"))
    return sorted((int(name[1]), file) for name, file in found if name)
