"""A folder of Pascal VOC: Annotations, JPEGImages, ImageSets/Main. Reader and writer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lookonce.data import voc
from lookonce.data.gathering import Gathering
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
    for file in sorted(folder.glob("*.xml")):
        _read(found, file, pictures)
    lists = root / "ImageSets" / "Main"
    for file in sorted((lists if lists.is_dir() else root / "ImageSets").glob("*.txt")):
        found.lists[file.stem] = file
        found.splits[file.stem] = partial(voc.read_list, file)
    return found


def _read(found: Gathering, file: Path, pictures: dict[str, str]) -> None:
    try:
        page = voc.parse(file)
        picture = voc.picture_of(file.stem, page, pictures)
        if picture is None:
            found.problem(file.stem, (file, 0), "picture missing", f"no picture {file.stem}.* beside it", "skipped")
            return
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
    placed, kind, said = voc.place_box(box, size, found.policy)
    if kind:
        found.problem(file.stem, place, kind, said, "dropped" if placed is None else "clipped")
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
