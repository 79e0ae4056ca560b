"""detect: images become drawn images, detections.json, and files for other programs."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, BinaryIO, get_args

from cyclopts import Parameter

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, check_order, expanded, several
from lookonce.commands.lake import LakeOptions, LakeSummary, detect_lake
from lookonce.commands.moving import FORMATS, MovingOptions, MovingSummary, Show, detect_moving, open_sources
from lookonce.commands.moving import remove_earlier as remove_earlier_videos
from lookonce.console import track as tracked
from lookonce.data.download import MOST_BYTES, fetch_image
from lookonce.data.images import BATCH, WAITING, Decoded, load_rgb, usable_cores
from lookonce.data.lookup import find_images
from lookonce.data.tiles import OVERLAP, check_overlap, read_tile
from lookonce.errors import ImageError, Interrupted, UserError, plural, printable
from lookonce.files import alike, new_folder, numbered_folder, replacing, sweep
from lookonce.inference.backends.settings import BackendName, Precision
from lookonce.inference.detector import Detector
from lookonce.inference.draw import MAX_LINE, draw
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.parts import PartFormat
from lookonce.inference.outputs import (
    ENDINGS,
    FILES,
    FOLDERS,
    RESULT,
    ImageResult,
    Outputs,
    SaveFormat,
    check_free,
    remove_earlier,
    write_crops,
)  # fmt: skip
from lookonce.inference.sources import Sampling, find_sources
from lookonce.model.detections import Detections
from lookonce.model.postprocess import LOWEST_THRESHOLD, Nms, Selection
from lookonce.server.client import ADDRESS as SERVER
from lookonce.server.client import Client

log = logging.getLogger("lookonce")
DETECTIONS = Path("detections")
STDIN = "<stdin>"
"""The word for an image on standard input; the command line takes - for it."""
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
LONGEST = 200
"""Bytes of a name before its number and ending; file systems take 255."""
LOOKED_AT = 2 * BATCH
"""Files that are searched again for their highest score if nothing was found."""


@dataclass
class Summary:
    """The result of `lookonce detect`."""

    out: Path
    images: int = 0
    skipped: int = 0
    detections: int = 0
    backed_off: int = 0
    """Of the detections: those whose class is a parent, because no child class was likely enough."""
    highest: float = 0.0
    """If nothing was found: the highest score on the first LOOKED_AT files, whatever the thresholds."""
    without_heif: int = 0
    """Of the skipped images: HEIC, while pillow-heif is not installed."""
    written: tuple[str, ...] = (RESULT,)
    """What is in the folder."""
    weak: tuple[str, ...] = ()
    """Classes with the lowest threshold that validation recommends."""

    def add(self, found: Detections) -> None:
        """Count an image and what was found on it."""
        self.images += 1
        self.detections += len(found)
        self.backed_off += 0 if found.backed_off is None else int((found.backed_off >= 0).sum())

    def to_json(self) -> dict[str, Any]:
        """Return the counts, and what was written where."""
        return {
            "out": str(self.out), "written": self.written, "images": self.images, "skipped": self.skipped,
            "detections": self.detections, **({"backed_off": self.backed_off} if self.backed_off else {}),
        }  # fmt: skip

    def __str__(self) -> str:
        counts = f"{plural(self.detections, 'detection')} in {plural(self.images, 'image')}"
        text = f"{counts} -> {self.out} ({', '.join(self.written)})"
        if self.backed_off:
            text += f"; {self.backed_off:,} backed off to a parent class (see --tree-threshold)"
        if self.skipped:
            heif = f" ({self.without_heif} of them HEIC: pip install pillow-heif)" if self.without_heif else ""
            text += f"; {plural(self.skipped, 'image')} skipped{heif}"
        if self.weak:
            text += (
                f"; the model is unsure about {', '.join(map(printable, self.weak))}, so the threshold is the lowest "
                f"recommended, {LOWEST_THRESHOLD} (see --threshold)"
            )
        if not self.detections:
            looked_at = plural(LOOKED_AT, "image")
            seen = "" if self.images + self.skipped <= LOOKED_AT else f" on the first {looked_at}"
            text += (
                f"; nothing passed the threshold, and the highest score{seen} is {self.highest:.3f} (see --threshold)"
            )
        return text


@dataclass(frozen=True)
class MixedSummary:
    """The result of `lookonce detect` on images and moving images."""

    images: Summary
    moving: MovingSummary

    def to_json(self) -> dict[str, Any]:
        """Return what both say."""
        return self.images.to_json() | self.moving.to_json()

    def __str__(self) -> str:
        return f"{self.images}\n{self.moving}"


@dataclass(frozen=True)
class _Job:
    """What one `detect` does with each image."""

    summary: Summary
    names: dict[str, str]
    """What the user named -> by the file that is read, where they differ."""
    formats: tuple[SaveFormat, ...]
    labels: Sequence[str] | None
    save_images: bool
    style: dict[str, Any]
    """Options of draw."""
    taken: set[str] = field(default_factory=set)
    """Stems in use, as _alike gives them."""


def detect(
    model: AnyPath,
    images: Sequence[str | Path],
    *,
    out: AnyPath | None = None,
    overwrite: bool = False,
    labels: Sequence[str] | None = None,
    threshold: float | None = None,
    iou_threshold: float = 0.45,
    nms: Nms = "iou",
    tree_threshold: float | None = None,
    save: Sequence[SaveFormat] | None = None,
    save_images: Annotated[bool, Parameter(negative="--no-save-images")] = True,
    track: bool = False,
    zones: AnyPath | None = None,
    every: int = 1,
    fps: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    keep_all: bool = False,
    resume: bool = False,
    show: bool | Show = False,
    hide_labels: bool = False,
    hide_scores: bool = False,
    line_width: int | None = None,
    backend: BackendName = "auto",
    device: str | None = None,
    precision: Precision = "auto",
    format: PartFormat | None = None,
    shards: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    tile: str | None = None,
    overlap: float = OVERLAP,
    flip: bool = False,
) -> Summary | MovingSummary | MixedSummary | LakeSummary:
    """Find objects in images, videos, cameras and streams.

    Args:
        model: Name of a published model (coco finds COCO's 80 classes; lookonce models lists all), which is downloaded
            once, model file, run folder, Darknet .cfg with its .weights beside it, exported .onnx or .xml, or the http
            or https address of lookonce serve, whose token is in LOOKONCE_TOKEN.
        images: Files, folders, patterns such as "holiday/*.jpg", the http or https address of an image, - for an image
            on standard input; video files, the number of a camera (0), the address of a stream (rtsp, http), which
            need: pip install 'lookonce[video]'; or a .txt list of all these, one a line. Cameras and streams are read
            at the same time, after everything else.
        out: New or empty folder for the images with boxes and detections.json (boxes xyxy, in pixels of the upright
            image), or for NAME.mp4 with boxes and NAME.jsonl with a line for each frame of each video; none:
            detections, or detections-2, detections-3, ... if that exists.
        overwrite: Write into a folder that holds files. Only what an earlier detect wrote there is replaced.
        labels: Classes to detect; none: all.
        threshold: Lowest score of a detection; none: the model's own threshold of each class, from validation.
        iou_threshold: Non-maximum suppression: of two boxes of a class with a higher IoU than this, keep the better.
        nms: iou, or diou, which keeps overlapping boxes whose centres are apart, as of two people side by side.
        tree_threshold: Of a model with a tree of classes: a detection goes on to a child class while its probability
            is above this, else it backs off to the parent, and "backed_off_from" in detections.json names the child;
            none: the model's own, 0.5.
        save: Also write YOLO text (labels/), Pascal VOC (annotations/), COCO results (coco.json), a table
            (detections.csv), the part of the image in each box (crops/).
        save_images: Write each image or video with its boxes.
        track: Videos: number the objects, which keep their numbers from frame to frame.
        zones: Videos: YAML file of lines and zones, at which objects are counted: NAME-events.csv and videos.json.
        every: Videos: use each n-th frame.
        fps: Videos: use at most so many frames a second.
        start: Videos: seconds at which to begin.
        end: Videos: seconds at which to stop.
        keep_all: Cameras and streams: use every frame, however late, in place of the newest.
        resume: Videos: continue after the last frame in NAME.jsonl of the folder --out.
        show: Videos: show the newest frames while the run goes on: in a window, or with --show page in a page whose
            address is printed. q, Esc or closing the window ends the run as Ctrl-C does.
        hide_labels: Draw boxes without labels.
        hide_scores: Draw labels without scores.
        line_width: Width of the drawn boxes in pixels; none: 1/200 of the image's shorter side.
        backend: Library that runs the network; auto: the fastest that is installed.
        device: cpu, cuda, or tensorrt (onnxruntime only); none: the backend's default.
        precision: fp32, bf16 (boxes within 1 px of fp32), or int8 (its cost in mAP is logged); auto: the fastest that
            the processor supports; int8 only if training or an export left an int8 form beside the model.
        format: Very many images: write tables alone, parquet or jsonl, a row an object, in parts (shards) that worker
            processes make. The same command goes on where it was stopped. Also takes .txt and .parquet lists, .tar
            files of images, and addresses such as s3://bucket/photos. parquet needs: pip install 'lookonce[lake]'.
        shards: Tables: number of parts; none: one for each 1,000 images, at least 16.
        workers: Tables: processes at once, which share the cores; none: one a core or GPU, at most 8.
        ray: Tables: run on a Ray cluster: its HOST:PORT, auto, or local, which starts Ray on this machine. Needs:
            pip install 'lookonce[ray]'.
        tile: For large images and small objects: also look at tiles of this size, such as 640x480 image pixels. auto:
            the tiles of the model's training, or a size in which its small objects are large enough; none: no tiles.
        overlap: Smallest part of a tile that its neighbour shows too, 0 to below 1.
        flip: Also look at the mirror image and average both: more accurate, at twice the time.
    Returns:
        A summary. An image that cannot be read is reported, skipped and counted.
    Raises:
        UserError: no image found or none that can be read, a model that cannot be read, an output folder that holds
            files.
        Interrupted: Ctrl-C; the detections so far are written.
    """
    formats = tuple(choose(name, get_args(SaveFormat), "save") for name in several(save or ()))
    if line_width is not None and not 1 <= line_width <= MAX_LINE:
        raise UserError(f"line-width: {line_width}; expected 1 to {MAX_LINE} pixels")
    check_overlap(overlap)
    looks: dict[str, Any] = {} if tile is None else {"tile": read_tile(tile), "overlap": overlap}
    looks |= {"flip": True} if flip else {}
    named, wanted = several(images), None if labels is None else several(labels)
    for image in named[:1]:
        check_order(expanded(model), Path(image), "lookonce detect MODEL IMAGES")
    style = {"hide_labels": hide_labels, "hide_scores": hide_scores, "line_width": line_width}
    tables = {"shards": shards, "workers": workers, "ray": ray}
    if format is not None:
        other = {"overwrite": overwrite, "save": formats, "no-save-images": not save_images, "track": track,
                 "zones": zones, "every": every != 1, "fps": fps, "start": start, "end": end, "keep-all": keep_all,
                 "show": show, **style}  # fmt: skip
        _refuse(other, "not for tables; leave it out, or --format")
        lake = Job(str(model), "", format, wanted, threshold, iou_threshold, nms,
                  tree_threshold, backend, device, precision, tile, overlap, flip)  # fmt: skip
        return detect_lake(
            lake, list(map(str, named)), None if out is None else expanded(out), LakeOptions(shards, workers, ray)
        )
    _refuse({name: value is not None for name, value in tables.items()},
            "is for tables; give --format parquet or jsonl as well")  # fmt: skip
    images, moving = _by_kind(named)
    video_options = {"track": track, "zones": zones, "every": every != 1, "fps": fps, "start": start, "end": end,
                     "keep-all": keep_all, "resume": resume, "show": show}  # fmt: skip
    if not moving:
        _refuse(video_options, "is for videos, cameras and streams; leave it out for images")
    options = MovingOptions(
        Sampling(every, fps, start, end, keep_all), track, None if zones is None else expanded(zones), resume,
        tuple(name for name in formats if name in FORMATS or not images),
        None if wanted is None else list(wanted), save_images, style,
        "window" if show is True else show or None,
    )  # fmt: skip
    by_server = SERVER.match(str(model))
    if by_server and moving:
        raise UserError(f"{model}: a server reads images; give the model itself for videos")
    if by_server and (
        (backend, device, precision, nms, tree_threshold) != ("auto", None, "auto", "iou", None) or looks
    ):
        raise UserError("backend, device, precision, nms, tree-threshold, tile, flip: are those of the server; leave "
                        "them out")  # fmt: skip
    if resume and (out is None or images):
        raise UserError("resume: give --out with the folder of the call to continue" if out is None else
                        f"resume: is for videos; leave out {images[0]}")  # fmt: skip

    @cache
    def opened() -> Detector:
        return Detector(model, backend, device=device, precision=precision, throughput=True, threshold=threshold,
                        iou_threshold=iou_threshold, nms=nms, tree_threshold=tree_threshold, **looks)  # fmt: skip

    with tempfile.TemporaryDirectory(prefix="lookonce-", ignore_cleanup_errors=True) as fetched:
        sources = open_sources(moving, options, wait=bool(images))
        files, names = _find(images, Path(fetched)) if images or not moving else ([], {})
        place = numbered_folder(DETECTIONS, start=2) if out is None else new_folder(expanded(out), overwrite or resume)
        with place as folder:
            sweep(folder)
            if overwrite and not resume:
                _remove_earlier(folder, files, moving)
            if not files:
                return detect_moving(opened, sources, folder, options)
            detector = Client(str(model), threshold=threshold, iou_threshold=iou_threshold) if by_server else opened()
            labels = None if wanted is None else [choose(name, detector.labels, "labels") for name in wanted]
            if overwrite:
                check_free(folder, formats)
            job = _Job(Summary(folder), names, formats, labels, save_images, style, _taken(folder))
            summary = _write_all(detector, files, job)
            return MixedSummary(summary, detect_moving(opened, sources, folder, options)) if moving else summary


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise UserError if one of these options, by name, has a value."""
    for name, value in options.items():
        if value:
            raise UserError(f"{name.replace('_', '-')}: {why}")


def _remove_earlier(folder: Path, files: Sequence[str], moving: Sequence[str]) -> None:
    """Remove what an earlier run of this kind wrote into a folder, but none of this one's inputs."""
    inputs = {Path(name).expanduser().resolve() for name in (*files, *moving)}
    if files:
        remove_earlier(folder, inputs)
    if moving:
        remove_earlier_videos(folder, inputs)


def _by_kind(named: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """Return the images and the moving images that the names mean."""
    images: list[str] = []
    moving: list[str] = []
    for name in map(str, named):
        stills, videos = find_sources(name)
        if stills and videos and Path(name).is_dir() and find_spec("cv2") is None:
            log.warning("%s: %s left out, as OpenCV is not installed; pip install 'lookonce[video]'", name,
                        plural(len(videos), "video"))  # fmt: skip
            videos = []
        images, moving = images + stills, moving + videos
    return images, moving


def _find(images: Sequence[str | Path], fetched: Path) -> tuple[list[str], dict[str, str]]:
    """Return the files that were named, and for those fetched into a folder the names that the user gave."""
    files: list[str] = []
    names: dict[str, str] = {}
    for number, pattern in enumerate(map(str, images)):
        is_address = ADDRESS.match(pattern) is not None and not Path(pattern).exists()
        if is_address or pattern in ("-", STDIN):
            content = fetch_image(pattern) if is_address else _read_stdin()
            stem = Path(re.split(r"[?#]", pattern)[0]).stem if is_address else "stdin"
            place = fetched / str(number) / (_short(re.sub(r"[^\w.-]", "_", stem)) or "image")
            place.parent.mkdir()
            place.write_bytes(content)
            files.append(str(place))
            names[str(place)] = pattern if is_address else "-"
        else:
            files += find_images(pattern)
    if not files:
        raise UserError("images: none given; expected files, folders or patterns such as 'dir/*.jpg'")
    return files, names


def _read_stdin() -> bytes:
    """Return an image from standard input. Raises UserError if there is none, or a larger one than MOST_BYTES."""
    stream: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if stream is None or stream.isatty():
        raise UserError("-: standard input is a terminal; expected an image: lookonce detect MODEL - < image.jpg")
    content = stream.read(MOST_BYTES + 1)
    if not 0 < len(content) <= MOST_BYTES:
        found = "more than" if content else "0 of at most"
        raise UserError(f"-: standard input has {found} {MOST_BYTES >> 20} MB; expected the bytes of an image")
    return content


def _header(detector: Detector | Client, job: _Job) -> dict[str, Any]:
    """Return what detections.json says about all images."""
    return {
        "model": detector.name,
        "model_digest": detector.digest,
        "labels": detector.labels,
        "thresholds": dict(zip(detector.labels, (round(v, 6) for v in detector.thresholds.tolist()), strict=True)),
        "iou_threshold": detector.selection.iou_threshold,
        **({} if isinstance(detector, Client) or detector.tiling is None else detector.tiling.to_json()),
        **({"flip": True} if isinstance(detector, Detector) and detector.selection.views > 1 else {}),
        "only": job.labels,
        "formats": job.formats,
    }


def _write_all(detector: Detector | Client, files: list[str], job: _Job) -> Summary:
    """Detect on every file; what is found before a stop is kept."""
    summary, stopped = job.summary, False
    with Outputs(summary.out, job.formats, _header(detector, job)) as outputs:
        try:
            for result in _found(detector, files, job):
                outputs.add(result)
                summary.add(result.found)
        except KeyboardInterrupt:
            stopped = True
        if not summary.images:
            raise _nothing_done(stopped, summary.skipped, job.names.get(files[0], files[0]))
    drawn = ("drawn image" if summary.images == 1 else "drawn images",) if job.save_images else ()
    summary.written = (*drawn, RESULT, *(FILES[k] for k in job.formats if k in ("coco", "csv")),
                       *(FOLDERS[k] + "/" for k in job.formats if k in FOLDERS))  # fmt: skip
    summary.weak = _weak_classes(detector)
    summary.highest = 0.0 if summary.detections else _highest_score(detector, files)
    if stopped:
        raise Interrupted(f"stopped after {summary.images} of {plural(len(files), 'image')}: {summary}", signal.SIGINT)
    return summary


def _weak_classes(detector: Detector | Client) -> tuple[str, ...]:
    """Return the classes whose own threshold is the lowest that is recommended; none where --threshold is given."""
    own = () if isinstance(detector, Client) else detector.about.thresholds
    if tuple(detector.thresholds.tolist()) != tuple(own):
        return ()
    return tuple(name for name, value in zip(detector.labels, own, strict=True) if value == LOWEST_THRESHOLD)


def _nothing_done(stopped: bool, skipped: int, first: str) -> Interrupted | UserError:
    if stopped:
        return Interrupted("stopped before the first image", signal.SIGINT)
    if skipped == 1:
        return UserError(f"{first}: cannot be read (see above); nothing was written")
    return UserError(f"none of the {skipped} images could be read; the first: {first}")


def _found(detector: Detector | Client, files: list[str], job: _Job) -> Iterator[ImageResult]:
    """Yield the result of each file in order; threads draw the images while the network runs."""
    paths = tracked(files, "detecting")
    with ThreadPoolExecutor(usable_cores()) as pool:
        drawings: deque[tuple[int, Future[None]]] = deque()  # with the bytes of its image
        for file, image, found in detector.detect_files(paths):
            if isinstance(image, ImageError):
                _skip(image, job)
                continue
            wanted = found if job.labels is None else found.only(job.labels)
            stem = _free_stem(Path(file).stem, job.taken)
            drawn = f"{stem}.jpg" if job.save_images else None
            result = ImageResult(job.names.get(file, file), stem, image.size, wanted, drawn)
            if job.save_images or "crops" in job.formats:
                drawings.append((image.pixels.nbytes, pool.submit(_write_images, file, image, result, job)))
            while len(drawings) > BATCH or sum(size for size, _ in drawings) > WAITING:
                drawings.popleft()[1].result()
            yield result
        while drawings:
            drawings.popleft()[1].result()


def _skip(error: ImageError, job: _Job) -> None:
    """Count an unreadable image and log it; of HEIC images without pillow-heif only the first."""
    summary, heif = job.summary, "pillow-heif" in error.found
    if not heif or not summary.without_heif:
        log.warning("skipped %s: %s", job.names.get(str(error.path), error.path), error.found)
    summary.skipped += 1
    summary.without_heif += heif


def _highest_score(detector: Detector | Client, files: list[str]) -> float:
    """Return the highest score on the first LOOKED_AT files, whatever the thresholds."""
    highest = Selection(0.0, max_candidates=1, tree=detector.selection.tree)
    found = detector.detect_files(files[:LOOKED_AT], highest)
    return max(float(each.scores.max(initial=0)) for _, _, each in found)


def _write_images(file: str, image: Decoded, result: ImageResult, job: _Job) -> None:
    """Write the drawn image and the crops."""
    whole = load_rgb(file) if image.reduced else image.pixels
    if result.drawn is not None:
        with replacing(job.summary.out / result.drawn) as beside:
            draw(whole, replace(result.found, file=None), **job.style).save(beside, quality=90)
    if "crops" in job.formats:
        write_crops(job.summary.out, result, whole)


def _taken(folder: Path) -> set[str]:
    """Return the stems of the files in a folder that detect does not replace."""
    below = (path for name in FOLDERS.values() for path in (folder / name).rglob("*"))
    return {alike(path.stem) for path in (*folder.iterdir(), *below) if path.suffix.lower() in ENDINGS}


def _free_stem(stem: str, taken: set[str]) -> str:
    """Return an unused stem for file names, and mark it as used."""
    short = stem = _short(stem)
    number = 2
    while alike(stem) in taken:
        stem, number = f"{short}-{number}", number + 1
    taken.add(alike(stem))
    return stem


def _short(stem: str) -> str:
    while len(os.fsencode(stem)) > LONGEST:
        stem = stem[:-1]
    return stem
