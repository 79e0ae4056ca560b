"""Annotations of tools whose formats are not read: named, with the way to one that is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from lookonce.data.pictures import is_hidden, walk_files
from lookonce.data.voc_folder import root_tag

HEAD = 1 << 16
"""Bytes of a file by which its tool is recognised."""
MOST_FOLDERS = 200
"""Folders that are looked into."""
SHOWN = 6
"""Folders whose content is told."""
TOOLS: tuple[tuple[str, str, str, str], ...] = (
    (".json", r'"shapes"\s*:\s*\[', "labelme's JSON", "convert it with labelme2coco or labelme2yolo"),
    (".json", r'^\s*\[.*"coordinates"\s*:', "CreateML's JSON", "export it as COCO or YOLO instead"),
    (".json", r'"_via_|"regions"\s*:|"shape_attributes"', "VGG Image Annotator's JSON", "export it as COCO instead"),
    (".json", r'"completions"\s*:|"rectanglelabels"|"from_name"\s*:', "Label Studio's own JSON",
     "export it as COCO, YOLO or Pascal VOC instead"),
    (".json", r'"classTitle"\s*:', "Supervisely's JSON", "export it as COCO or YOLO instead"),
    (".json", r'"items"\s*:\s*\[', "Datumaro's JSON", "export it as COCO or YOLO instead"),
    (".json", r'^\s*\[\s*\{[^{}]*"image_id"\s*:', "detections (COCO results)", "name the COCO file with the images"),
    (".ndjson", r"", "a file of JSON lines", "export it as COCO or YOLO instead"),
    (".csv", r"", "a CSV file (as Roboflow and TensorFlow write them)",
     "export it as COCO, YOLO or Pascal VOC instead"),
    (".tfrecord", r"", "a TFRecord file", "export it as COCO, YOLO or Pascal VOC instead"),
    (".record", r"", "a TFRecord file", "export it as COCO, YOLO or Pascal VOC instead"),
    (".zip", r"", "an archive", "unpack it, and name the folder"),
    (".tar", r"", "an archive", "unpack it, and name the folder"),
    (".gz", r"", "an archive", "unpack it, and name the folder"),
    (".7z", r"", "an archive", "unpack it, and name the folder"),
)  # fmt: skip
"""Ending, what the head of a file shows, the tool, and what to do."""


def name_tool(file: Path) -> str | None:
    """What a file of another tool is, and what to do; None: it is of no tool known here."""
    ending = file.suffix.lower()
    if ending == ".xml":
        cvat = root_tag(file) == "annotations"
        return (
            "looks like CVAT's own XML (CVAT for images); export it as Pascal VOC, COCO or YOLO instead"
            if cvat
            else None
        )
    known = [tool for tool in TOOLS if tool[0] == ending]
    if not known:
        return None
    try:
        with file.open("rb") as content:
            head = content.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    for _, shows, tool, way in known:
        if re.search(shows, head, re.DOTALL):
            return f"looks like {tool}; {way}"
    return None


def what_lies_there(root: Path) -> str:
    """What was seen in which folder, and the first file of another tool with what to do; for an error."""
    seen: list[str] = []
    tool = ""
    for folder, names in islice(walk_files(root), MOST_FOLDERS):
        where = Path(folder).relative_to(root).as_posix()
        if names and len(seen) < SHOWN:
            seen.append(f"{'' if where == '.' else where + '/: '}{_counted(names)}")
        for name in _one_of_each(names) if not tool else ():
            if said := name_tool(Path(folder, name)):
                tool = f"; {name if where == '.' else f'{where}/{name}'} {said}"
                break
    return (f"there are {'; '.join(seen)}" if seen else "there are no files") + tool


def _one_of_each(names: Iterable[str]) -> list[str]:
    """A file for each ending."""
    first: dict[str, str] = {}
    for name in names:
        if not is_hidden(name):
            first.setdefault(Path(name).suffix.lower(), name)
    return list(first.values())


def _counted(names: Iterable[str]) -> str:
    """Files by ending: 3 .jpg, 1 .csv."""
    counts = Counter(Path(name).suffix.lower() or "without ending" for name in names)
    return ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(4))
