"""A folder of Pascal VOC: Annotations, JPEGImages, ImageSets/Main. Reader and writer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce.data import voc
from lookonce.data.gathering import FIXED, Gathering, guessed
from lookonce.data.record import DataPolicy, Dataset
from lookonce.errors import PictureError, UserError

EXPECTED = "Pascal VOC: Annotations/*.xml beside JPEGImages/"


def find_voc(root: Path) -> Path | None:
    """The folder of annotations in a VOC data set; None: it is none."""
    names = ("Annotations", "annotations", "labels", ".")
    return next((root / n for n in names if next((root / n).glob("*.xml"), None)), None)


def read_voc(root: Path, policy: DataPolicy) -> Gathering:
    """Every annotation of a VOC data set, and its lists. Raises UserError where there are none."""
    folder = find_voc(root)
    if folder is None:
        raise UserError(f"{root}: no annotations found; expected {EXPECTED}")
    found = Gathering(root, policy, "voc")
    homes = [root / n for n in ("JPEGImages", "images", "Images")] + [folder, root]
    pictures = voc.picture_index(dict.fromkeys(homes), root)
    files = sorted(folder.glob("*.xml"))
    for file in files:
        _read(found, file, pictures)
    known = frozenset(file.stem for file in files)
    lists = root / "ImageSets" / "Main"
    for file in sorted((lists if lists.is_dir() else root / "ImageSets").glob("*.txt")):
        found.lists[file.stem] = file
        found.splits[file.stem] = cache(partial(voc.read_list, file, known, guessed(found, file.stem, file)))
    return found


def _read(found: Gathering, file: Path, pictures: dict[str, list[str]]) -> None:
    try:
        page = voc.parse(file, guessed(found, file.stem, file))
        choice = voc.pictures_of(file.stem, page, pictures)
        if not choice:
            found.problem(file.stem, (file, 0), "picture missing", f"no image {file.stem}.* beside it", "skipped")
            return
        picture = choice[0]
        if len(choice) > 1:
            names = " and ".join(Path(path).name for path in choice)
            said = f"{names} have one stem, and the annotation names {page.filename!r}"
            found.problem(file.stem, (file, 0), "two images for one annotation", said, f"{choice[0]} read")
        size = voc.size_of(page, found.root / picture)
    except UserError as error:
        kind = "picture unreadable" if isinstance(error, PictureError) else "annotation unreadable"
        found.problem(file.stem, (file, 0), kind, str(error).removeprefix(str(file)).lstrip(":"), "skipped")
        return
    found.begin(file.stem, picture, size, file)
    for thing in page.objects:
        _add(found, file, thing, size)


def _add(found: Gathering, file: Path, thing: voc.Thing, size: tuple[int, int]) -> None:
    """Take one object in, or note why it is left out."""
    name, box, place = thing.text.get("name", ""), voc.read_box(thing), (file, thing.line)
    if not name or isinstance(box, str):
        said = box if isinstance(box, str) else "an object without a name"
        found.problem(file.stem, place, "object unreadable", said, "dropped")
        return
    if "xmin" not in thing.text:
        found.problem(file.stem, place, "polygon", "a polygon without bndbox; read as its bounding box", FIXED)
    placed = found.settled(file.stem, place, box, size, first=1)
    if placed is not None:
        hard = thing.text.get("difficult", "0").strip() not in ("", "0", "0.0", "false")
        found.add(name, placed, thing.line, hard)


def write_voc(root: Path, dataset: Dataset, names: list[str], splits: Mapping[str, NDArray[np.int64]]) -> Path:
    """Write annotations and lists of a data set whose pictures lie in root/JPEGImages under `names` [M].

    splits: name -> indices of pictures. Returns the folder of the annotations.
    """
    stems = [Path(name).stem for name in names]
    for stem, name, record in zip(stems, names, dataset.records, strict=True):
        classes = [dataset.labels[label] for label in record.labels]
        voc.write_annotation(
            root / "Annotations" / f"{stem}.xml", name, record.size, record.boxes, classes, record.difficult.tolist()
        )
    for split, members in splits.items():
        voc.write_split(root / "ImageSets" / "Main" / f"{split}.txt", [stems[i] for i in members])
    return root / "Annotations"
