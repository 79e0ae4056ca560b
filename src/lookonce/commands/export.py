"""export: write a detector for other programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from lookonce.choices import choose
from lookonce.commands.arguments import AnyPath, expanded
from lookonce.data.lookup import find_images
from lookonce.deploy.export import Exported, Options, write_darknet, write_onnx, write_openvino
from lookonce.errors import ConfigError, UserError
from lookonce.files import check_output, file_digest, sweep
from lookonce.inference.backends.open import model_files
from lookonce.inference.pretrained_models import model_name, model_path
from lookonce.model.model_file import Model, load_model

Format = Literal["darknet", "onnx", "openvino"]


@dataclass(frozen=True)
class Writer:
    """How a format is written."""

    write: Callable[[Model, Path, Options], Exported]
    """Writes a model to a path without an ending, and names the files."""
    endings: tuple[str, ...]
    options: frozenset[str]
    """The options that concern the format."""


WRITERS: dict[Format, Writer] = {
    "darknet": Writer(write_darknet, (".cfg", ".weights", ".names"), frozenset({"folded"})),
    "onnx": Writer(write_onnx, (".onnx",), frozenset({"raw", "data"})),
    "openvino": Writer(write_openvino, (".xml", ".bin"), frozenset({"raw", "half", "int8", "max_drop", "data"})),
}


def export(
    model: AnyPath,
    format: Format,
    *,
    out: AnyPath | None = None,
    folded: bool = False,
    raw: bool = False,
    half: bool = False,
    int8: bool = False,
    max_drop: float | None = None,
    data: AnyPath | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a detector for other programs.

    Args:
        model: Name of a published model (see lookonce models), model file, run folder, or Darknet .cfg with its
            .weights beside it.
        format: darknet: .cfg, .weights and .names, for Darknet, OpenCV and other readers.
            onnx: one file from pixels to rows of image, class, box and score, for ONNX Runtime and others.
            openvino: the same as .xml and .bin.
        out: Name without an ending ("out/cells" gives out/cells.cfg and so on), or a folder that holds no images; none:
            beside the model, under its name; of a published model in this folder.
        folded: Darknet: fold batch norm into the convolutions. Every reader then computes the same, whatever its
            epsilon; for detection only. The other formats are always folded.
        raw: ONNX and OpenVINO: write the network alone, for OpenCV and readers without NonMaxSuppression: from float
            pixels 0..1 [1, 3, height, width] to the maps before the detection heads.
        half: OpenVINO: weights as 16-bit floats; half the size, boxes within 1 px.
        int8: OpenVINO: int8 convolutions, calibrated on the training images of --data and checked by mAP on its
            validation images. Layers that cost too much accuracy stay in float32.
        max_drop: Largest mAP loss of --int8 on the validation images, 0 to 1; none: 0.005.
        data: ONNX and OpenVINO: folder of images on which the file is compared with the model; none: generated images.
            --int8 needs a labelled data set.
        overwrite: Replace files that exist, except those of the model itself.
    Returns:
        The files written, their largest difference from the model, and the cost of int8.
    Raises:
        UserError: a model that cannot be read, a file that cannot be written, an export onto the model itself, an
            option of another format, a file that differs from the model or loses too much (it is not kept).
    """
    format = choose(format, get_args(Format), "format")
    options = Options(folded, raw, half, int8, max_drop, expanded(data) if data else None)
    given = {option.name for option in fields(Options) if getattr(options, option.name) not in (None, False)}
    writer = WRITERS[format]
    if foreign := sorted(given - writer.options):
        raise ConfigError(f"--{foreign[0]}: not an option of {format}; it takes {', '.join(sorted(writer.options))}")
    _check_int8(options)
    source = model_path(model)
    loaded = load_model(source)
    options = replace(options, digest=file_digest(model_files(source)) if int8 else None)
    stem = _stem(source, expanded(out) if out else None)
    if source.suffix in (".cfg", ".weights") and stem.resolve() == _plain(source).resolve():
        raise ConfigError(f"{source}: the export would overwrite the model itself; give --out")
    for ending in writer.endings:
        check_output(stem.with_name(stem.name + ending), overwrite)
    sweep(stem.parent)
    return writer.write(loaded, stem, options)


def _check_int8(options: Options) -> None:
    """Raises ConfigError for options that int8 does not go with."""
    if options.max_drop is not None and not options.int8:
        raise ConfigError("--max-drop: without --int8 nothing is lost; leave it out, or give --int8")
    if options.int8 and options.half:
        raise ConfigError("--half: int8 has 8 bits already; leave one of the two out")
    if options.int8 and options.data is None:
        raise ConfigError("--int8: no images to calibrate on; give --data, a labelled data set with train and val")


def _plain(path: Path) -> Path:
    """A path without the ending of a model's file; another dot in its name stays."""
    endings = (".cfg", ".weights", ".names", ".safetensors", ".onnx", ".xml", ".bin")
    return path.with_suffix("") if path.suffix in endings else path


def _holds_images(folder: Path) -> bool:
    """Whether a folder is a data set by its images; those of a run are its own."""
    if (folder / "model.safetensors").is_file():
        return False
    try:
        return bool(find_images(folder))
    except UserError:
        return False


def _stem(source: Path, out: Path | None) -> Path:
    """Where the files go, without an ending. The folder of a data set is no place for them: `cells` gives cells.cfg."""
    name = "model" if source.is_dir() else _plain(source).name
    if out is not None:
        return out / name if out.is_dir() and not _holds_images(out) else _plain(out)
    if model_name(source) != str(source):
        return Path(name)
    return (source if source.is_dir() else source.parent) / name
