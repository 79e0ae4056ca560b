"""A model as Darknet's files: .cfg, .weights, .names, and .tree where classes contain each other."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from lookonce.darknet.pair import save_darknet
from lookonce.exporting.options import Exported, Options
from lookonce.files import write_text
from lookonce.model_file import Model
from lookonce.network import folded
from lookonce.resize import antialiases, stretches
from lookonce.tree import write_tree

LOWEST_SCORE = 0.01
"""thresh= of a folded cfg. It is a key of training, which such a file is not for; OpenCV hides scores below it."""

log = logging.getLogger("lookonce")


def write(model: Model, stem: Path, options: Options) -> Exported:
    """Write a model for Darknet, OpenCV's dnn and what else reads these files.

    Raises UserError for a file that cannot be written.
    """
    if stretches(model.resize):
        log.warning("this model stretches pictures to its input; Darknet's own programs letterbox them")
    elif antialiases(model.resize):
        log.info("this model averages pixels when it shrinks an image; Darknet's own programs and OpenCV do not, so "
                 "their detections on large images differ a little")  # fmt: skip
    if not model.region.softmax:
        log.warning("%s.cfg: OpenCV does not read it: its region layer judges each class alone (softmax=0); for OpenCV "
                    "use --format onnx --raw", stem.name)  # fmt: skip
    network = model.network
    if options.folded:
        network = folded(network)
        network.layers = (*network.layers[:-1], replace(model.region, thresh=LOWEST_SCORE))
    else:
        log.info("%s.cfg: OpenCV takes the training key thresh=%g for its lowest score; --folded writes %g",
                 stem.name, model.region.thresh, LOWEST_SCORE)  # fmt: skip
    cfg, weights, names = (stem.with_name(stem.name + ending) for ending in (".cfg", ".weights", ".names"))
    save_darknet(network, cfg, weights, frame=model.frame, seen=model.seen)
    write_text(names, "".join(f"{' '.join(label.split())}\n" for label in model.labels))
    written = [cfg, weights, names]
    if model.tree is not None:
        written.append(stem.parent / Path(model.region.tree).name)  # the cfg keeps its own way of naming it
        if not written[-1].exists():
            write_text(written[-1], write_tree(model.tree))
    return Exported(tuple(written))
