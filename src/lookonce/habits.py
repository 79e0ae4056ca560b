"""What users of Ultralytics, Darknet and keras-yolo2 type, and what to type here.

Two names of commands are accepted. Options are not, because they may mean something else here: the error names the
option of lookonce. There is no guess: what is not in these tables gets no hint.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

from lookonce.commands.arguments import is_model
from lookonce.errors import ConfigError

ALIASES = {"predict": "detect", "val": "evaluate"}
OTHER_COMMANDS = {
    "detector": "lookonce train, detect or evaluate", "infer": "lookonce detect", "map": "lookonce evaluate",
    "test": "lookonce evaluate for scores, lookonce detect for images", "valid": "lookonce evaluate",
    "validate": "lookonce evaluate", "yolo": "lookonce train, detect or evaluate",
}  # fmt: skip
"""Command of another program -> what to use here."""
POSITIONAL = ("model", "data", "source")
"""Arguments of other programs that are written without a name here, in this order. In `train`, model is an option."""
OPTIONS = (
    ("imgsz img img-size image-size input-size", "train", "--size"),
    ("imgsz img img-size image-size input-size", "", "the input size is that of the model; leave it out"),
    ("batch batchsize b", "train", "--batch-size"),
    ("batch batchsize b", "", "the batch size is chosen for you; leave it out"),
    ("model cfg m", "train", "--network for a new network, --weights to start from a model"),
    ("w", "train", "--weights"),
    ("w model", "", "the model is the first argument, without a name"),
    ("source input i", "", "images are the second argument, without a name"),
    ("lr lr0", "", "--learning-rate"),
    ("cos-lr", "", "--schedule cosine"),
    ("warmup-epochs", "", "--burn-in (in steps)"),
    ("close-mosaic mosaic", "", "--augment.mosaic"),
    ("fliplr", "", "--augment.flip"),
    ("hsv-h", "", "--augment.hue"),
    ("hsv-s", "", "--augment.saturation"),
    ("hsv-v", "", "--augment.exposure"),
    ("scale", "", "--augment.zoom"),
    ("degrees shear perspective flipud mixup", "", "this augmentation does not exist here; leave it out"),
    ("conf conf-thres confidence thresh t", "detect", "--threshold"),
    ("conf conf-thres confidence thresh t", "", "scores count from .005, as mAP needs; leave it out"),
    ("iou iou-thres iou-thresh nms", "", "--iou-threshold"),
    ("classes class", "", "--labels (names, not numbers)"),
    ("project output outdir save-dir o", "", "--out"),
    ("exist-ok", "train", "a run is never overwritten; use another --name"),
    ("exist-ok", "", "--overwrite"),
    ("line-thickness", "", "--line-width"),
    ("split", "train", "--train-split and --val-split"),
    ("val", "train", "--val-split none to train without validation"),
    ("amp half", "", "--precision"),
    ("gpus gpu", "", "--device cuda"),
    ("e", "", "--epochs"),
    ("n", "", "--name"),
    ("d", "", "--device"),
    ("c", "", "--config FILE.yaml, whose lines are options"),
    ("save-period", "", "--checkpoint-minutes"),
    ("num-of-clusters", "anchors", "--k"),
    ("cache", "", "images are cached by themselves; leave it out"),
    ("save", "train", "the model is always saved; leave it out"),
    ("dont-show", "detect", "nothing is shown unless asked for; leave it out"),
    ("view-img", "detect", "--show"),
    ("show dont-show", "", "nothing is shown in a window; open the images in the output folder"),
    ("slice-height slice-width slice slice-size", "", "--tile WIDTHxHEIGHT"),
    ("overlap-height-ratio overlap-width-ratio overlap-ratio", "", "--overlap"),
    ("save-txt", "detect", "--save yolo"),
    ("save-crop save-crops", "detect", "--save crops"),
    ("save-json", "detect", "--save coco"),
    ("csv", "detect", "--save csv"),
    ("hide-conf", "detect", "--hide-scores"),
    ("save-conf ext-output", "", "detections.json holds boxes and scores; leave it out"),
    ("letter-box rect", "", "the resize mode is kept in the model; in training use --resize"),
    ("map verbose plots quiet", "", "leave it out"),
    ("dynamic simplify opset", "export", "leave it out: the file takes any input size and runs as it is"),
)
"""(spellings, command of lookonce or "" for any, its option or a sentence); the first match counts."""


def current_command(words: Sequence[str]) -> list[str]:
    """Return the words with `predict`, `val`, `help` and `version` replaced by what lookonce calls them.

    Raises ConfigError for another program's command.
    """
    first, *rest = words or [""]
    if first in OTHER_COMMANDS:
        raise ConfigError(f"{first}: no command of lookonce; use {OTHER_COMMANDS[first]}")
    if first == "help":
        return [*rest, "--help"]
    if first == "version":
        return ["--version"]
    return [ALIASES.get(first, first), *rest] if words else []


def hint(option: str, command: str) -> str | None:
    """Return what to use in place of another program's option; None: no such option is known.

    Args:
        option: as typed, with dashes or without.
        command: the command of lookonce.
    """
    name = option.lstrip("-").partition("=")[0].casefold().replace("_", "-")
    matches = (text for names, where, text in OPTIONS if name in names.split() and where in ("", command))
    return next(matches, None)


def detect_line(words: Sequence[str]) -> str | None:
    """Return the line that detects with a published model, for a `detect` with images alone; None: they are not there.

    words: the command and its words.
    """
    from lookonce.data.images import IMAGE_SUFFIXES  # with PIL

    given = [
        word for word in words[1:]
        if Path(word).suffix.lower() in IMAGE_SUFFIXES or (Path(word).is_dir() and not is_model(Path(word)))
    ]  # fmt: skip
    return shlex.join(["lookonce", "detect", "coco", *given]) if given else None


def refuse_pairs(words: Sequence[str], options: Collection[str]) -> None:
    """Raise ConfigError for words such as epochs=3, with the whole line as it is written here.

    Args:
        words: the command and its words.
        options: names of the command's options, with dashes.
    """
    command, *rest = words or [""]
    pairs = [word for word in rest if word.partition("=")[1] and word.partition("=")[0].isidentifier()
             and not Path(word).exists()]  # fmt: skip
    if not pairs:
        return
    values = dict(word.split("=", 1) for word in pairs)
    named = [name for name in POSITIONAL if name in values and (command, name) != ("train", "model")]
    line, unknown = ["lookonce", command, *(values[name] for name in named)], []
    for word in rest:
        name, _, value = word.partition("=")
        option = f"--{name.replace('_', '-')}"
        other = hint(name, command) or ""
        if word not in pairs:
            line.append(word)
        elif option in options and name not in named:
            line += [option, value]
        elif other in options:
            line += [other, value]
        elif name not in named:
            unknown.append(name)
    more = f" (there is no {', '.join(unknown)})" if unknown else ""
    raise ConfigError(f"{pairs[0]}: write options as --name value: {shlex.join(line)}{more}")
