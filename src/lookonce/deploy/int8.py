"""int8 for OpenVINO: quantised after training by NNCF, with mAP on the validation images as its judge.

Activations are calibrated on images of the train split. An export then moves each layer that costs too much back to
float32, the dearest first, until the rest costs no more than is allowed. The end of a training has less time: it tries
the whole network, then the network without its first and last convolutions. The test split is not looked at.
Source: Nagel et al., A White Paper on Neural Network Quantization (2021), section 3.
"""

from __future__ import annotations

import importlib
import io
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino
from numpy.typing import NDArray

from lookonce.data.class_tree import read_for
from lookonce.data.dataset import Dataset
from lookonce.data.images import load_for, open_ahead
from lookonce.errors import ConfigError, ImageError, UserError
from lookonce.evaluation.average_precision import score
from lookonce.evaluation.compare import Comparison, compare_detections
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.inference.backends.int8_form import Judgement
from lookonce.inference.backends.openvino import the_core
from lookonce.inference.backends.settings import BackendInfo, Images
from lookonce.inference.detector import Detector
from lookonce.model.model_file import Model
from lookonce.model.onnx_graph import network_model
from lookonce.model.resize import to_input

log = logging.getLogger("lookonce")
MAX_DROP = 0.005
CALIBRATION = 300
"""Images at most from which the ranges of activations are taken. Source: NNCF, quantize, subset_size."""
QUICK = 100
"""Images at most that calibrate at the end of a training."""


class DropError(UserError):
    """A quantised detector that loses more than is allowed."""


@dataclass(frozen=True)
class Quantised:
    """A network with 8-bit convolutions."""

    network: openvino.Model
    """From "pixels" to "raw"."""
    calibration: int
    """Images of the train split that it was calibrated on."""
    comparison: Comparison
    kept: tuple[str, ...]
    """Convolutions that stayed in float32, by their place in the network; others are 8 bits."""
    convolutions: int

    def __str__(self) -> str:
        kept = f"in float32: {', '.join(self.kept)}" if self.kept else "none in float32"
        return (
            f"int8, calibrated on {self.calibration} images of the train split; val: {self.comparison}\n"
            f"{self.convolutions - len(self.kept)} of {self.convolutions} convolutions are int8; {kept}"
        )

    def judgement(self, digest: str | None) -> str:
        """Return what it costs, as the JSON of its file. digest: of the model's files."""
        found = self.comparison
        return msgspec.json.encode(Judgement(digest, found.before, found.after, found.images)).decode()


def quantise(model: Model, data: Path, max_drop: float = MAX_DROP) -> Quantised:
    """Quantise a model's convolutions to int8.

    Args:
        model: what to quantise.
        data: a labelled data set: its train images calibrate, its val images judge.
        max_drop: mAP on the val images that may be lost, 0..1.
    Raises:
        ConfigError: max_drop out of range, nncf not installed.
        UserError: a data set that cannot be read, or without objects to judge by; DropError: no way to lose so little.
    """
    if not 0 < max_drop <= 1:
        raise ConfigError(f"max_drop: {max_drop}; expected more than 0, at most 1 (of mAP)")
    nncf = _package()
    train, val = _images(data, model)
    judge = _Judge(model, val)
    validation = nncf.Dataset(list(range(len(val))), lambda i: _input(val.records[i].path, judge.about))
    log.info("int8: calibrated on %d images, judged on %d", len(train), len(val))
    with redirect_stdout(sys.stderr):  # where its progress belongs
        made = nncf.quantize_with_accuracy_control(
            judge.network, judge.calibration(nncf, train), validation, judge, max_drop=max_drop,
            drop_type=nncf.DropType.ABSOLUTE, preset=nncf.QuantizationPreset.MIXED, subset_size=len(train),
            advanced_quantization_parameters=_parameters(nncf),
        )  # fmt: skip
    found = judge.compared(made, len(train))
    none_left = len(found.kept) == found.convolutions
    if found.comparison.drop > max_drop or none_left:
        why = "all convolutions went back to float32" if none_left else found.comparison
        raise DropError(
            f"int8 loses more than --max-drop {max_drop:g} on the val images ({why}), and nothing was written; "
            "allow more, or calibrate on more train images"
        )
    return found


def quantise_quickly(model: Model, train: Dataset, val: Dataset, until: float = math.inf) -> Quantised:
    """Quantise a model's convolutions to int8 in seconds: all of them, else all but the first and the last ones.

    Args:
        model: what to quantise.
        train: images that calibrate; QUICK of them do.
        val: images that judge.
        until: time.monotonic() after which nothing more is tried.
    Raises:
        ConfigError: nncf is not installed.
        UserError: a model that scores 0; DropError: no way to lose at most MAX_DROP.
    """
    nncf = _package()
    judge = _Judge(model, val)
    train = _readable(train.select(np.array(_spread(len(train), QUICK), np.int64)), judge.about, "int8")
    convolutions = [op.get_friendly_name() for op in judge.network.get_ordered_ops() if _is_convolution(op)]
    last = [op.get_friendly_name() for output in judge.network.outputs for op in _makers(output.get_node())]
    found: list[Quantised] = []
    for left_out in ([], [convolutions[0], *last]):
        if found and time.monotonic() > until:
            break
        with redirect_stdout(io.StringIO()):  # a bar
            made = nncf.quantize(
                judge.network, judge.calibration(nncf, train), preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(train), advanced_parameters=_parameters(nncf),
                ignored_scope=nncf.IgnoredScope(names=left_out) if left_out else None,
            )  # fmt: skip
        found.append(judge.compared(made, len(train)))
        if found[-1].comparison.drop <= MAX_DROP:
            return found[-1]
    raise DropError(f"int8 loses more than {MAX_DROP:g} on the validation images ({found[-1].comparison})")


class _Judge:
    """Scores networks in place of a model's own on the validation images, and remembers what its own finds.

    Raises UserError if it scores 0.
    """

    def __init__(self, model: Model, val: Dataset) -> None:
        self.about, self.val = model.description, val
        self.network = the_core().read_model(network_model(model).SerializeToString())
        self.before = _found(self.network, self.about, val, "fp32")
        if not score(val, self.before, RULES, bootstrap=0).mean_ap:
            raise UserError(f"int8: the model scores mAP 0 on the {len(val)} validation images of {val.root}, so there "
                            "is nothing to judge int8 by; train it longer")  # fmt: skip

    def calibration(self, nncf: Any, train: Dataset) -> Any:
        """Return the inputs of images as NNCF takes them."""
        return nncf.Dataset([record.path for record in train.records], lambda path: _input(path, self.about))

    def __call__(self, compiled: openvino.CompiledModel,
                 places: Iterable[int]) -> tuple[float, list[list[NDArray[np.float32]]]]:  # fmt: skip
        """Return mAP on some of the images, and the raw maps of each."""
        asked = list(places)
        running = _Running(compiled, self.about, _backend("int8"))
        part = self.val.select(np.array(asked))
        mean_ap = score(part, detect_all(Detector(running), part)[0], RULES, bootstrap=0).mean_ap or 0.0
        if len(asked) == len(self.val):
            log.info("int8: mAP %.4f", mean_ap)
        return mean_ap, running.raws

    def compared(self, made: openvino.Model, calibrated: int) -> Quantised:
        """Return a quantised network with its cost. calibrated: images that it was calibrated on."""
        after = _found(made, self.about, self.val, "int8")
        comparison = compare_detections(self.val, self.before, after, RULES, str(_backend("fp32 -> int8")))
        convolutions = [op for op in made.get_ops() if _is_convolution(op)]
        kept = tuple(op.get_friendly_name().split("/")[0] for op in convolutions if not _is_quantised(op))
        return Quantised(made, calibrated, comparison, kept, len(convolutions))


@dataclass
class _Running:
    """A compiled network as a backend, which remembers what it gave."""

    compiled: openvino.CompiledModel
    about: Model
    info: BackendInfo
    raws: list[list[NDArray[np.float32]]] = field(default_factory=list)

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """One image at a time: inputs [3, H, W] to the raw maps, one a head."""
        found = [[raw.copy() for raw in self.compiled(image[None]).values()] for image in images]
        self.raws += found
        return tuple(np.concatenate(maps) for maps in zip(*found, strict=True))


def _found(network: openvino.Model, about: Model, dataset: Dataset, precision: str) -> Sequence[Any]:
    """What a network finds on the images of a data set."""
    fixed = network.clone()
    fixed.reshape([1, 3, about.input_size[1], about.input_size[0]])
    compiled = the_core().compile_model(fixed, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return detect_all(Detector(_Running(compiled, about, _backend(precision))), dataset)[0]


def _input(path: Path, about: Model) -> NDArray[np.float32]:
    """An image as the network takes it, [1, 3, H, W]."""
    return to_input(load_for(path, about.input_size, about.pixel_range).image, about.input_size, about.resize)[None]


def _images(data: Path, model: Model) -> tuple[Dataset, Dataset]:
    """The train images that calibrate and the val images that judge."""
    about = model.description
    train, val = read_for(model.labels, model.tree, data, ["train", "val"])
    train = _readable(train.select(np.array(_spread(len(train), CALIBRATION), np.int64)), about, f"{data}, train")
    val = _readable(val, about, f"{data}, val")
    if not len(val.boxes):
        raise UserError(f"{data}: no objects on its {len(val)} val images; int8 is judged on them")
    return train, val


def _readable(dataset: Dataset, about: Model, what: str) -> Dataset:
    """The images that can be read; others are told. Raises UserError where none is left."""
    paths = [record.path for record in dataset.records]
    broken = np.array([isinstance(opened, ImageError) for _, opened in open_ahead(paths, about.input_size)], bool)
    if broken.all():
        raise UserError(f"{what}: none of its {len(paths)} images can be read; int8 needs some")
    if broken.any():
        log.warning("%s: %d of %d images cannot be read and are left out", what, broken.sum(), len(paths))
    return dataset.select(~broken)


def _backend(precision: str) -> BackendInfo:
    return BackendInfo("openvino", openvino.__version__.split("-")[0], precision, "cpu")


def _parameters(nncf: Any) -> Any:
    """Return the settings of NNCF: a CPU without VNNI would else compute other numbers."""
    return nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)


def _is_convolution(op: openvino.Node) -> bool:
    return bool(op.get_type_name() == "Convolution")


def _makers(node: openvino.Node) -> list[openvino.Node]:
    """Return the convolutions that a result is made of, nearest first, up to the first one on each way."""
    if _is_convolution(node):
        return [node]
    return [op for value in node.input_values() for op in _makers(value.get_node())]


def _is_quantised(convolution: openvino.Node) -> bool:
    weight = convolution.input_value(1).get_node()
    return bool(weight.get_type_name() != "Constant")  # but a product of bytes and their scale


def _spread(count: int, most: int) -> list[int]:
    """At most so many of 0..count-1, from all over."""
    return list(range(0, count, -(-count // most)))


def _package() -> Any:
    """Nncf, told to report to nobody."""
    os.environ["NNCF_CI"] = "1"
    try:
        found = importlib.import_module("nncf")
    except ImportError:
        raise ConfigError("int8: the package nncf is not installed; run: pip install 'lookonce[int8]'") from None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return found
