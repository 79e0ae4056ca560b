"""Recognize files of other annotation tools and say what to do, where no data set is found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from lookonce.data.formats.voc import root_tag
from lookonce.data.lookup import is_hidden, walk_files

HEAD = 1 << 16
"""Bytes at the start of a file that show its tool."""
MOST_FOLDERS = 200
"""Folders that are searched."""
SHOWN = 6
"""Folders whose content is listed."""
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
"""Ending, pattern of the start of the file, tool, and what to do."""


def name_tool(file: Path) -> str | None:
    """Return what a file of another tool is and what to do; None for a file of no known tool."""
    ending = file.suffix.lower()
    if ending == ".xml":
        cvat = "looks like CVAT's own XML (CVAT for images); export it as Pascal VOC, COCO or YOLO instead"
        return cvat if root_tag(file) == "annotations" else None
    known = [tool for tool in TOOLS if tool[0] == ending]
    if not known:
        return None
    try:
        with file.open("rb") as content:
            head = content.read(HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    for _, shows, tool, remedy in known:
        if re.search(shows, head, re.DOTALL):
            return f"looks like {tool}; {remedy}"
    return None


def describe_folder(root: Path) -> str:
    """Return what each folder holds, and the first file of another tool with what to do; for an error message."""
    seen: list[str] = []
    tool = ""
    for folder, names in islice(walk_files(root), MOST_FOLDERS):
        where = Path(folder).relative_to(root).as_posix()
        if names and len(seen) < SHOWN:
            seen.append(f"{'' if where == '.' else where + '/: '}{_counted(names)}")
        for name in _one_of_each(names) if not tool else ():
            if found := name_tool(Path(folder, name)):
                tool = f"; {name if where == '.' else f'{where}/{name}'} {found}"
                break
    return (f"there are {'; '.join(seen)}" if seen else "there are no files") + tool


def _one_of_each(names: Iterable[str]) -> list[str]:
    """Return one file name for each ending."""
    first: dict[str, str] = {}
    for name in names:
        if not is_hidden(name):
            first.setdefault(Path(name).suffix.lower(), name)
    return list(first.values())


def _counted(names: Iterable[str]) -> str:
    """Return the number of files by ending: 3 .jpg, 1 .csv."""
    counts = Counter(Path(name).suffix.lower() or "without ending" for name in names)
    return ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(4))
