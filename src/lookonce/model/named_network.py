"""The network that a user names (a known one, a Darknet .cfg, that of a model file), with other classes and anchors."""

from __future__ import annotations

from pathlib import Path

from lookonce.model import zoo
from lookonce.model.anchors import anchors_by_head
from lookonce.model.darknet.cfg import Cfg
from lookonce.model.darknet.files import changed, detector_of
from lookonce.model.model_file import load_model
from lookonce.model.sizes import heads_of


def named_network(name: str, classes: int, anchors: zoo.AnchorSizes = ()) -> Cfg:
    """Return the network of a name with this number of classes, as a cfg.

    Args:
        name: of a known network; else a path, of a .cfg or of a model file.
        classes: of each head.
        anchors: (w, h) by growing area, in cells of STRIDE pixels, which the heads divide; empty: its own.
    Raises:
        UserError: no such name or file; a file that holds no detector; fewer anchors than heads.
    """
    if name.endswith(".cfg"):
        cfg = detector_of(Path(name), classes)
    elif name.endswith(".safetensors"):
        about = load_model(name).description
        cfg = changed(Cfg(about.layers, *about.input_size, about.channels), name, classes)
    else:
        cfg = Cfg(zoo.detector(name, classes, zoo.own_anchors(name)))
    if not anchors:
        return cfg
    return changed(cfg, name, classes, anchors_by_head(anchors, zoo.STRIDE, heads_of(cfg.layers)))
