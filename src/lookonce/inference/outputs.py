"""Files of detections: detections.json, and what other programs read: YOLO text, Pascal VOC, COCO results, CSV, crops.

Boxes in detections.json and in the CSV are xyxy in pixels of the upright image. YOLO text has a line "class cx cy w h
score" for each detection, as fractions of the image. COCO counts classes from 1, and its image_id is the number that
the name of the image is, else that name.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import numpy as np

from lookonce.data.formats.voc import write_annotation
from lookonce.errors import UserError
from lookonce.files import replacing, write_text
from lookonce.model.boxes import xyxy_to_cxcywh
from lookonce.model.detections import COLUMNS, Detections

SaveFormat = Literal["yolo", "voc", "coco", "csv", "crops"]
"""What detect writes besides detections.json and the drawn images."""
RESULT = "detections.json"
FOLDERS = {"yolo": "labels", "voc": "annotations", "crops": "crops"}
"""Folders of the formats that have a file for each image."""
FILES = {"yolo": "classes.txt", "coco": "coco.json", "csv": "detections.csv"}
"""Files that hold all images together."""
ENDINGS = (".jpg", ".txt", ".xml")
UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""Characters that not all systems allow in a name."""


@dataclass(frozen=True)
class ImageResult:
    """What was found on one image."""

    file: str
    """As the user named it: a path or an address."""
    stem: str
    """Of the files that are written for it; unique in the folder."""
    size: tuple[int, int]  # (width, height), pixels
    found: Detections
    drawn: str | None = None
    """Name of the drawn image."""


def write_entry(text: TextIO, file: str, found: Detections, first: bool, more: dict[str, Any] | None = None) -> None:
    """Write one image's detections as an element of a JSON list.

    first: it is the first element. more: what else the entry has.
    """
    entry = {"file": file, **(more or {}), "detections": found.to_json()}
    text.write(("" if first else ",") + "\n" + json.dumps(entry))


@dataclass
class Outputs:
    """The files of one `detect`, written image by image; those of all images are complete after `with`."""

    folder: Path
    formats: tuple[SaveFormat, ...]
    header: dict[str, Any]
    """Start of detections.json; its "labels" are the class names."""
    images: int = 0
    _files: dict[str, TextIO] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _first_result: bool = True

    def __enter__(self) -> Outputs:
        try:
            for name in (RESULT, *(FILES[kind] for kind in ("coco", "csv") if kind in self.formats)):
                beside = self._stack.enter_context(replacing(self.folder / name))
                self._files[name] = self._stack.enter_context(
                    beside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n")
                )
        except BaseException:
            self._stack.close()
            raise
        self._files[RESULT].write(json.dumps(self.header)[:-1] + ', "images": [')
        if "coco" in self.formats:
            self._files[FILES["coco"]].write("[")
        if "csv" in self.formats:
            csv.writer(self._files[FILES["csv"]], lineterminator="\n").writerow(("file", *COLUMNS))
        return self

    def __exit__(self, *failure: Any) -> None:
        if failure[0] is None:
            self._files[RESULT].write("\n]}\n")
            if "coco" in self.formats:
                self._files[FILES["coco"]].write("\n]\n")
            if "yolo" in self.formats:
                write_text(self.folder / FILES["yolo"], "".join(f"{name}\n" for name in self.header["labels"]))
        self._stack.__exit__(*failure)

    def add(self, image: ImageResult) -> None:
        """Write one image in every format but crops."""
        written = [f"{FOLDERS[kind]}/{image.stem}{ending}" for kind, ending in (("yolo", ".txt"), ("voc", ".xml"))
                   if kind in self.formats]  # fmt: skip
        if "crops" in self.formats:
            written += crop_names(image)
        more: dict[str, Any] = {"width": image.size[0], "height": image.size[1]}
        more |= {"drawn": image.drawn} if image.drawn else {}
        more |= {"written": written} if written else {}
        write_entry(self._files[RESULT], image.file, image.found, self.images == 0, more)
        self.images += 1
        if "yolo" in self.formats:
            write_text(self.folder / FOLDERS["yolo"] / f"{image.stem}.txt", yolo_lines(image))
        if "voc" in self.formats:
            place = self.folder / FOLDERS["voc"] / f"{image.stem}.xml"
            name = re.split(r"[\\/]", image.file)[-1]
            write_annotation(place, name, image.size, image.found.boxes, image.found.names)
        if "coco" in self.formats:
            for entry in image.found.to_coco(_image_id(image.file)):
                self._files[FILES["coco"]].write(("" if self._first_result else ",") + "\n" + json.dumps(entry))
                self._first_result = False
        if "csv" in self.formats:
            rows = csv.writer(self._files[FILES["csv"]], lineterminator="\n")
            rows.writerows(table_rows(image.file, image.found))


def table_rows(file: str, found: Detections) -> Iterator[tuple[object, ...]]:
    """Yield the file and COLUMNS of each detection, as in detections.csv."""
    return ((file, one.name, one.label, f"{one.score:.6f}", *(f"{v:.2f}" for v in one.box)) for one in found)


def yolo_lines(image: ImageResult) -> str:
    """Return "class cx cy w h score" for each detection, as fractions of the image."""
    boxes = xyxy_to_cxcywh(image.found.boxes / np.array([*image.size, *image.size], np.float64))
    return "".join(
        f"{label} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f} {score:.6f}\n"
        for label, (cx, cy, w, h), score in zip(image.found.labels, boxes, image.found.scores, strict=True)
    )


def crop_names(image: ImageResult) -> list[str]:
    """Return the path below the folder of the crop of each detection: crops/CLASS/STEM-N.jpg."""
    return [f"{FOLDERS['crops']}/{folder_name(one.name)}/{image.stem}-{n}.jpg" for n, one in enumerate(image.found, 1)]


def folder_name(class_name: str) -> str:
    """Return a class name as a folder may be called on every system."""
    return UNSAFE.sub("_", class_name).strip(". ")[:60] or "_"


def write_crops(folder: Path, image: ImageResult, pixels: np.ndarray[Any, Any]) -> None:
    """Write the part of the whole image in each box."""
    for name, crop in zip(crop_names(image), image.found.crops(pixels), strict=True):
        with replacing(folder / name) as beside:
            crop.save(beside, quality=90)


def _image_id(file: str) -> int | str:
    name = Path(re.split(r"[\\/]", file)[-1])
    return int(name.stem) if name.stem.isdecimal() and len(name.stem) < 19 else name.name


def remove_earlier(folder: Path, inputs: set[Path]) -> None:
    """Remove what an earlier detect wrote into a folder: its detections.json, and the files that this names.

    inputs: files that stay, resolved.
    """
    result = folder / RESULT
    try:
        earlier = json.loads(result.read_bytes())
        entries = earlier["images"] if "images" in earlier else earlier["pictures"]  # "pictures": version 0.1
        names = [name for entry in entries for name in (entry.get("drawn"), *(entry.get("written") or ()))]
        formats = earlier.get("formats") or ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # none, or not of detect
    names += [FILES[kind] for kind in formats if isinstance(kind, str) and kind in FILES]
    for name in names:
        path = folder / name if isinstance(name, str) and _is_ours(name) else None
        if path is not None and path.resolve() not in inputs and path.is_file() and not path.parent.is_symlink():
            path.unlink()


def _is_ours(name: str) -> bool:
    """Return whether detect writes files of this name, below its folder."""
    parts = name.split("/")
    if "\\" in name or ".." in parts or "" in parts:
        return False
    if len(parts) == 1:
        return name.endswith(".jpg") or name in FILES.values()
    return parts[0] in FOLDERS.values() and len(parts) <= 3 and name.endswith(ENDINGS)


def check_free(folder: Path, formats: tuple[SaveFormat, ...]) -> None:
    """Raise UserError if a file that detect did not write has the name of an output for all images."""
    for path in (folder / FILES[kind] for kind in formats if kind in FILES):
        if path.exists():
            raise UserError(f"{path}: exists, and detect did not write it; move it, or give another --out")
