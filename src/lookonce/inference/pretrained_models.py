"""Published models by name: files of the cache folder, downloaded when they are named for the first time.

    <cache>/models/NAME.weights    as published
    <cache>/models/NAME.cfg        written beside it from the zoo, with NAME.names

The weights are checked each time they are used. A prefix file (darknet53.conv.74) has no .cfg.
Published mAP: README of dog-qiuqiu/Yolo-Fastest; pjreddie.com/darknet/yolo; README of AlexeyAB/darknet.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from lookonce.choices import choose, closest, key
from lookonce.data.download import DOWNLOADS, RemoteFile, check_online, fetch, mismatch
from lookonce.errors import UserError
from lookonce.files import write_text
from lookonce.inference.cache import CacheError, cache_folder
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.layers import Layer

log = logging.getLogger("lookonce")
DEFAULT = "coco"
"""Another name of the first model in the table."""
FILES = {wanted.name: wanted for wanted in DOWNLOADS}
NAMES = Path(__file__).with_name("coco.names")


@dataclass(frozen=True)
class PretrainedModel:
    """Weights that others trained and published, and the network that they belong to."""

    weights: RemoteFile
    """Name, lengths, checksum, mirrors, origin and licence of the file."""
    network: str
    """Its network, or that of which it is the start, by its name in zoo.DETECTORS."""
    build: Callable[[], tuple[Layer, ...]]
    """Makes the layers of the network."""
    classes: int
    """Classes that it detects; 0: it has no head."""
    side: int
    """Width and height of its input, pixels."""
    map50: float | None = None
    """Published mAP@0.5 on COCO, 0 to 1."""
    map_source: str = ""
    """Images on which that was measured, and who says so."""
    prefix: int | None = None
    """Number of layers, counted as Darknet does, of a file that holds the start of the network; None: all."""

    @property
    def name(self) -> str:
        """What the user types."""
        return self.weights.name

    @property
    def path(self) -> Path:
        """Its place in the cache folder, whether it is there or not."""
        return models_folder() / self.weights.file


def _coco(name: str, network: str, build: Callable[..., tuple[Layer, ...]], anchors: zoo.AnchorSizes, side: int,
          percent: float, source: str) -> PretrainedModel:  # fmt: skip
    """A detector of the 80 classes of COCO."""
    made = partial(build, 80, anchors)
    return PretrainedModel(FILES[name], network, made, 80, side, percent / 100, source)


def _start(name: str, network: str, anchors: zoo.AnchorSizes, side: int) -> PretrainedModel:
    """The first layers of a network, for training; Darknet writes their number behind the name."""
    made = partial(zoo.DETECTORS[network], 80, anchors)
    return PretrainedModel(FILES[name], network, made, 0, side, prefix=int(name.rpartition(".")[2]))


VAL, AUTHOR, FORK = "COCO val 2017, dog-qiuqiu/Yolo-Fastest", "COCO test-dev, pjreddie.com", "COCO test-dev, AlexeyAB"
MODELS = (
    _coco("yolo-fastest-1.1-xl", "yolo_fastest_xl", zoo.yolo_fastest_xl, zoo.FASTEST_ANCHORS, 320, 34.33, VAL),
    _coco("yolo-fastest-1.1", "yolo_fastest", zoo.yolo_fastest, zoo.FASTEST_ANCHORS, 320, 24.40, VAL),
    _coco("yolov2-tiny", "yolov2_tiny", zoo.yolov2_tiny, zoo.COCO_ANCHORS, 416, 23.7, AUTHOR),
    _coco("yolov2", "yolov2", zoo.yolov2, zoo.COCO_ANCHORS, 608, 48.1, AUTHOR),
    _coco("yolov3-tiny", "yolov3_tiny", zoo.yolov3_tiny, zoo.TINY_ANCHORS, 416, 33.1, AUTHOR),
    _coco("yolov4-tiny", "yolov4_tiny", partial(zoo.yolov4_tiny, fine_mask=(1, 2, 3)), zoo.TINY_ANCHORS, 416, 40.2,
          FORK),
    _coco("yolov3", "yolov3", zoo.yolov3, zoo.YOLOV3_ANCHORS, 608, 57.9, AUTHOR),
    _coco("yolov4", "yolov4", zoo.yolov4, zoo.YOLOV4_ANCHORS, 608, 65.7, FORK),
    _start("darknet19_448.conv.23", "yolov2", zoo.COCO_ANCHORS, 448),
    _start("darknet53.conv.74", "yolov3", zoo.YOLOV3_ANCHORS, 256),
    _start("yolov4-tiny.conv.29", "yolov4_tiny", zoo.TINY_ANCHORS, 416),
    _start("yolov4.conv.137", "yolov4", zoo.YOLOV4_ANCHORS, 608),
)  # fmt: skip


def models_folder() -> Path:
    """Return the folder of the published models in the cache."""
    return cache_folder() / "models"


def known(name: str) -> PretrainedModel | None:
    """Return the published model of this name, in any spelling; a network's name is that of its detector. Else None."""
    names = {model.network: model for model in MODELS if model.prefix is None}
    names |= {DEFAULT: MODELS[0]} | {model.name: model for model in MODELS}
    return next((model for each, model in names.items() if key(each) == key(name)), None)


def find(name: str, what: str = "model") -> PretrainedModel:
    """Return the published model of this name. what: the option that names it, for the message.

    Raises ConfigError with all names and the most similar one.
    """
    return known(name) or MODELS[[m.name for m in MODELS].index(choose(name, [m.name for m in MODELS], what))]


def cached(name: str) -> Path | None:
    """Return the weights of a published model if the cache folder has them, whole and unchanged; else None.

    A detector's .cfg and .names are beside them.
    """
    model = find(name)
    return _with_cfg(model) if mismatch(model.path, model.weights) is None else None


def path_of(name: str, offline: bool = False) -> Path:
    """Return the weights of a published model in the cache folder, downloaded if they are not there.

    Args:
        name: any in MODELS, or DEFAULT.
        offline: never connect; so do LOOKONCE_OFFLINE=1 and the option --offline of every command.
    Raises:
        UserError: an unknown name; offline, and the file is not there (the message says what to put where); no mirror
            gives it; the cache folder cannot be written.
    """
    model = find(name)
    if (path := cached(name)) is not None:
        return path
    check_online(model.weights, model.path, offline)
    try:
        models_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(f"{model.path}.lock"):
            if mismatch(model.path, model.weights) is not None:  # another process may have downloaded it
                fetch(model.weights, model.path, "LOOKONCE_CACHE")
    except (OSError, NotImplementedError) as error:
        raise CacheError(f"{models_folder()}: cannot be written ({error}); set LOOKONCE_CACHE to another folder, or "
                         "run lookonce download and give the file") from None  # fmt: skip
    return _with_cfg(model)


def model_path(given: Path | str, starts: bool = False) -> Path:
    """Return the file or run folder that a model argument means; a published model's name is its file in the cache.

    A file, or a folder that holds a model, comes before a published model of the same name; another folder, such as
    the images of COCO in `coco`, does not.

    Args:
        given: a path, or a name as path_of takes it.
        starts: prefix files count as models: training can start from them.
    Raises:
        UserError: neither a file nor a name, with the nearest name; the start of a network; and as path_of does.
    """
    path = Path(given).expanduser()
    is_run = (path / "model.safetensors").is_file() or (path / "checkpoints").is_dir()
    if len(path.parts) != 1 or path.is_file() or is_run:
        return path
    model = known(path.name)
    if model is None:
        if path.exists() or re.fullmatch(r"\.[A-Za-z]+", path.suffix):
            return path  # the reader of the file says what is wrong with it
        names = [DEFAULT, *(model.name for model in MODELS if starts or model.prefix is None)]
        near = closest(path.name, names)
        raise UserError(f"{path}: no such file or run folder, and no published model of this name; expected a model "
                        f"file, a run folder or one of {', '.join(names)}"
                        + (f"; did you mean {near!r}?" if near else ""))  # fmt: skip
    if model.prefix is not None and not starts:
        raise UserError(f"{path}: the first {model.prefix} layers of {model.network}, for training alone: lookonce "
                        f"train DATA --network {model.network} --weights {path}")  # fmt: skip
    if path.exists():
        log.info("%s: the published model; the folder of this name holds no model", path)
    return path_of(path.name)


def model_name(path: Path) -> str:
    """Return the name of a published model for its file in the cache; else the path."""
    return next((model.name for model in MODELS if model.path == path), str(path))


def _with_cfg(model: PretrainedModel) -> Path:
    """Write the .cfg and .names of a detector beside its weights, unless they are there. Return the weights."""
    if model.prefix is None:
        text = write_cfg(Cfg(model.build(), model.side, model.side))
        for suffix, content in ((".cfg", text), (".names", NAMES.read_text(encoding="utf-8"))):
            file = model.path.with_suffix(suffix)
            if not file.is_file() or file.read_text(encoding="utf-8") != content:
                write_text(file, content)
    return model.path
