"""int8 for OpenVINO: quantised after training by NNCF, with mAP on the validation images as its judge.

Activations are calibrated on images of the train split; then each layer that costs too much goes back to float32,
the dearest first, until the rest costs no more than is allowed. The test split is not looked at.
Source: Nagel et al., A White Paper on Neural Network Quantization (2021), section 3.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from lookonce.inference.backends.openvino import the_core
from lookonce.inference.backends.settings import BackendInfo
from lookonce.inference.detector import Detector
from lookonce.model.model_file import Model
from lookonce.model.onnx_graph import network_model
from lookonce.model.resize import to_input

log = logging.getLogger("lookonce")
MAX_DROP = 0.005
CALIBRATION = 300
"""Images at most from which the ranges of activations are taken. Source: NNCF, quantize, subset_size."""


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
    about = model.description
    network = the_core().read_model(network_model(model).SerializeToString())
    train, val = _images(data, model)
    calibration = nncf.Dataset([record.path for record in train.records], lambda path: _input(path, about))
    validation = nncf.Dataset(list(range(len(val))), lambda i: _input(val.records[i].path, about))

    def judge(compiled: openvino.CompiledModel, places: Iterable[int]) -> tuple[float, list[list[NDArray[np.float32]]]]:
        asked = list(places)
        running = _Running(compiled, about, _backend("int8"))
        part = val.select(np.array(asked))
        mean_ap = score(part, detect_all(Detector(running), part)[0], RULES, bootstrap=0).mean_ap or 0.0
        if len(asked) == len(val):
            log.info("int8: mAP %.4f", mean_ap)
        return mean_ap, running.raws

    log.info("int8: calibrated on %d images, judged on %d", len(train), len(val))
    with redirect_stdout(sys.stderr):  # where its progress belongs
        made = nncf.quantize_with_accuracy_control(
            network, calibration, validation, judge, max_drop=max_drop, drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.MIXED, subset_size=len(train),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE  # a CPU without VNNI would else compute other numbers
            ),
        )  # fmt: skip
    before, after = (_found(each, about, val, kind) for each, kind in ((network, "fp32"), (made, "int8")))
    comparison = compare_detections(val, before, after, RULES, str(_backend("fp32 -> int8")))
    convolutions = [op for op in made.get_ops() if op.get_type_name() == "Convolution"]
    kept = tuple(op.get_friendly_name().split("/")[0] for op in convolutions if not _is_quantised(op))
    none_left = len(kept) == len(convolutions)
    if comparison.drop > max_drop or none_left:
        found = "all convolutions went back to float32" if none_left else comparison
        raise DropError(
            f"int8 loses more than --max-drop {max_drop:g} on the val images ({found}), and nothing was written; "
            "allow more, or calibrate on more train images"
        )
    return Quantised(made, len(train), comparison, kept, len(convolutions))


@dataclass
class _Running:
    """A compiled network as a backend, which remembers what it gave."""

    compiled: openvino.CompiledModel
    about: Model
    info: BackendInfo
    raws: list[list[NDArray[np.float32]]] = field(default_factory=list)

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """One image at a time: [B, 3, H, W] to the raw maps, one a head."""
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
    return to_input(load_for(path, about.input_size, about.pixel_range).pixels, about.input_size, about.resize)[None]


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
