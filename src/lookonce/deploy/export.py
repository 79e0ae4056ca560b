"""Write a model for other programs: Darknet's files, ONNX, OpenVINO. Each writer compares its file with the model.

A writer imports only what its format needs: an export to Darknet loads neither onnx nor openvino.
OpenVINO's files are made from ONNX without `openvino.convert_model`, which would report to Intel.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from lookonce.errors import UserError
from lookonce.files import replacing, write_text
from lookonce.model.darknet.files import save_darknet
from lookonce.model.layers import Region
from lookonce.model.model_file import KEY, Model
from lookonce.model.network import folded
from lookonce.model.resize import antialiases, stretches
from lookonce.model.sizes import tree_files
from lookonce.model.tree import write_tree

if TYPE_CHECKING:
    import openvino


@dataclass(frozen=True)
class Options:
    """Options of an export; each format takes some."""

    folded: bool = False
    """Batch norm folded into the convolutions."""
    raw: bool = False
    """The network alone, to its raw map."""
    half: bool = False
    """Weights as 16-bit floats."""
    int8: bool = False
    """int8 convolutions."""
    max_drop: float | None = None
    """Largest mAP loss of int8 on the validation images; None: int8.MAX_DROP."""
    data: Path | None = None
    """Images to compare the file with the model on; a labelled data set for int8."""
    digest: str | None = None
    """Of the model's files. An int8 file keeps it, so that a Detector knows which model it is of."""


@dataclass(frozen=True)
class Exported:
    """What `lookonce export` wrote."""

    files: tuple[Path, ...]
    verification: str = ""
    """Largest differences between the file and the model, as a table."""
    accuracy: str = ""
    """What int8 costs in mAP."""

    def __str__(self) -> str:
        return "\n".join([*map(str, self.files), *filter(None, [self.accuracy, self.verification])])


LOWEST_SCORE = 0.01
"""thresh= of a folded cfg: OpenCV hides scores below it. Training uses the key, but nobody trains a folded file."""
log = logging.getLogger("lookonce")


def write_darknet(model: Model, stem: Path, options: Options) -> Exported:
    """Write .cfg, .weights and .names files for Darknet, OpenCV's dnn and others.

    Raises UserError for a file that cannot be written.
    """
    if stretches(model.resize):
        log.warning("this model stretches images to its input; Darknet's own programs letterbox them")
    elif antialiases(model.resize):
        log.info("this model averages pixels when it shrinks an image; Darknet's own programs and OpenCV do not, so "
                 "their detections on large images differ a little")  # fmt: skip
    regions = [head.layer for head in model.heads if isinstance(head.layer, Region)]
    if not all(region.softmax for region in regions):
        log.warning("%s.cfg: OpenCV does not read it: its region layer judges each class alone (softmax=0); for OpenCV "
                    "use --format onnx --raw", stem.name)  # fmt: skip
    network = model.network
    if options.folded:
        network = folded(network)
        network.layers = tuple(replace(layer, thresh=LOWEST_SCORE) if isinstance(layer, Region) else layer
                               for layer in network.layers)  # fmt: skip
    elif regions:
        log.info("%s.cfg: OpenCV takes the training key thresh=%g for its lowest score; --folded writes %g",
                 stem.name, regions[0].thresh, LOWEST_SCORE)  # fmt: skip
    cfg, weights, names = (stem.with_name(stem.name + ending) for ending in (".cfg", ".weights", ".names"))
    save_darknet(network, cfg, weights, input_size=model.input_size, seen=model.seen)
    write_text(names, "".join(f"{' '.join(label.split())}\n" for label in model.labels))
    written = [cfg, weights, names]
    if model.tree is not None:
        texts = {"tree": write_tree(model.tree), "map": "".join(f"{node}\n" for node in model.tree.map)}
        for key, named in tree_files(model.layers).items():  # the cfg keeps its own way of naming them
            if texts[key]:
                written.append(stem.parent / PureWindowsPath(named).name)
                _write_once(written[-1], texts[key])
    return Exported(tuple(written))


def _write_once(path: Path, text: str) -> None:
    """Write a file that several exports share. Raises UserError if it is there with another content."""
    if path.exists() and path.read_text("utf-8", "replace").split() != text.split():
        raise UserError(f"{path}: belongs to another model; export into another folder, or remove it")
    write_text(path, text)


READERS = "for ONNX Runtime and OpenVINO; for OpenCV use --raw, or for OpenCV 4 --format darknet"
RAW_READERS = (
    "for every reader of ONNX, OpenCV too: float RGB pixels in 0..1, [1, 3, height, width], to the raw map; decode it "
    "and suppress in your own program"
)


def write_onnx(model: Model, stem: Path, options: Options) -> Exported:
    """Write one .onnx file, verify it, and keep it only if it computes what the model does.

    Raises UserError for a file that cannot be written, VerificationError for one that computes something else.
    """
    import onnx

    from lookonce.deploy.verify import from_raw, onnx_runner, verify
    from lookonce.model.onnx_graph import detector_model, raw_model

    path = stem.with_name(stem.name + ".onnx")
    with replacing(path) as beside:
        onnx.save_model(raw_model(model) if options.raw else detector_model(model), beside)
        run, backend = onnx_runner(beside)
        verified = verify(model, from_raw(model, run) if options.raw else run, backend, options.data)
    log.info("%s: %s", path, RAW_READERS if options.raw else READERS)
    return Exported((path,), str(verified))


def write_openvino(model: Model, stem: Path, options: Options) -> Exported:
    """Write .xml and .bin, verify them, and keep them only if they compute what the model does.

    Raises UserError for a file that cannot be written, VerificationError for one that computes something else.
    """
    from lookonce.deploy.verify import BY_ACCURACY, EXACT, HALF, from_raw, openvino_runner, verify
    from lookonce.inference.backends.int8_form import KEY as JUDGED
    from lookonce.inference.backends.openvino import openvino_model, saved
    from lookonce.model.onnx_graph import detector_model, raw_model

    xml = stem.with_name(stem.name + ".xml")
    made = raw_model(model) if options.raw else detector_model(model)
    whole, tolerance, accuracy = openvino_model(made), EXACT, ""
    if options.half:
        tolerance = HALF
    if options.int8:
        from lookonce.deploy.int8 import MAX_DROP, quantise

        assert options.data is not None  # the command checks it
        quantised = quantise(model, options.data, MAX_DROP if options.max_drop is None else options.max_drop)
        whole = with_network(whole, quantised.network)
        whole.set_rt_info(quantised.judgement(options.digest), JUDGED)
        tolerance, accuracy = BY_ACCURACY, str(quantised)
    with saved(whole, xml, options.half) as beside:
        run, backend = openvino_runner(beside)
        verified = verify(model, from_raw(model, run) if options.raw else run, backend, options.data, tolerance)
    log.info("%s: for OpenVINO; for OpenCV use --format onnx --raw, or for OpenCV 4 --format darknet", xml)
    return Exported((xml, xml.with_suffix(".bin")), str(verified), accuracy)


def with_network(whole: openvino.Model, network: openvino.Model) -> openvino.Model:
    """Return a detector with another network: the part from "pixels" to the raw maps."""
    import openvino

    from lookonce.model.onnx_layers import PIXELS

    tensors = {name: output for op in whole.get_ops() for output in op.outputs() for name in output.get_names()}
    for reader in network.input(0).get_target_inputs():
        reader.replace_source_output(tensors[PIXELS])
    for output in network.outputs:
        name = output.get_any_name()
        made = output.get_node().input_value(0)  # the node before the result
        for reader in tensors[name].get_target_inputs():
            reader.replace_source_output(made)
        tensors[name].set_names(set())
        made.set_names({name})
    joined = openvino.Model(whole.get_results(), whole.get_parameters(), "lookonce")
    joined.set_rt_info(whole.get_rt_info(KEY).value, KEY)
    return joined
