"""Every detector cfg of Darknet as a table: is it read, what its weights hold, does another reader compute the same.

    python benchmarks/darknet_cfgs.py [FOLDER ...]       # folders of .cfg files; without one: the networks below

Each network gets random weights and statistics of its own, is written as .cfg and .weights, read again (equal layers,
equal bytes), and runs on a small input beside OpenCV 4, the last that reads such files, with OpenCV's constant of batch
norm. Prints Markdown; ends with 1 where a network differs. OpenCV reads no [detection], [local], [batchnorm],
[Gaussian_yolo], and takes xnor=1 for an ordinary convolution: tests hold these to Darknet's own numbers or to a loop.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from lookonce import Network, load_darknet, save_darknet
from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.darknet.files import read_text
from lookonce.model.darknet.weights import Header
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode
from lookonce.model.layers import (
    Activation,
    Batchnorm,
    Connected,
    Conv,
    Crop,
    Detection,
    Dropout,
    Layer,
    MaxPool,
    PlacedHead,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)
from lookonce.model.network import Sigma
from lookonce.model.sizes import Shape, fitted, heads_of, num_floats, stride

NINE_THOUSAND = ((0.77871, 1.14074), (3.00525, 4.31277), (9.22725, 9.61974))
TOLERANCE = 1e-4
"""Of boxes, as a fraction of the input or of their side, and of scores."""
Layers = tuple[Layer, ...]


def without_dropout(layers: Layers) -> Layers:
    return tuple(layer for layer in layers if not isinstance(layer, Dropout))


def without_norm(layers: Layers) -> Layers:
    """Without batch norm, as the first cfgs of YOLOv1."""
    return tuple(replace(layer, batch_normalize=False) if isinstance(layer, Conv) else layer for layer in layers)


def binary(layers: Layers, first: int, last: int) -> Layers:
    """With xnor=1 in the convolutions from one place to another, counted without other layers."""
    places = [i for i, layer in enumerate(layers) if isinstance(layer, Conv)][first : last + 1]
    return tuple(replace(x, xnor=True) if i in places and isinstance(x, Conv) else x for i, x in enumerate(layers))


def yolo_small() -> Layers:
    """YOLOv1 with three connected layers, on a crop of the image."""
    *trunk, _, _, _, head = without_norm(zoo.yolov1(20, boxes=2))
    assert isinstance(head, Detection)
    ends = (Connected(512), Connected(4096), Dropout(), Connected(head.channels, "linear"), head)
    return fitted((Crop(448, 448), *trunk, *ends), Shape(3, 448, 448))


def xyolo() -> Layers:
    """YOLOv1-tiny with binary convolutions and a batch norm of its own before each."""
    first, pool, *rest = binary(zoo.yolov1_tiny(20), 1, 5)
    return (first, pool, *(each for x in rest for each in ((Batchnorm(), x) if isinstance(x, Conv) else (x,))))


def leaky(layers: Layers) -> Layers:
    return tuple(
        replace(x, activation="leaky") if isinstance(x, Conv) and x.activation == "mish" else x for x in layers
    )


def pooled(classes: int) -> Layers:
    """YOLOv3 with pools of three sizes (SPP) before its first head."""
    layers = zoo.yolov3(classes, zoo.YOLOV3_ANCHORS)
    at = heads_of(layers)[0].index - 4
    pools = (MaxPool(5, 1), Route((-2,)), MaxPool(9, 1), Route((-4,)), MaxPool(13, 1), Route((-1, -3, -5, -6)))
    moved = [replace(x, layers=tuple(i if i < at else i + 7 for i in x.layers)) if isinstance(x, Route) else x
             for x in layers[at:]]  # fmt: skip
    return (*layers[:at], *pools, Conv(512, 1), *moved)


def three_heads(two: Layers, all_anchors: zoo.AnchorSizes, skip: int) -> Layers:
    """The tiny networks of v3 and v4 with a third head, of stride 8. skip: the layer that its route reads."""
    layers, anchors = list(two), zoo.in_pixels(all_anchors)
    for head, mask in zip(heads_of(two), ((6, 7, 8), (3, 4, 5)), strict=True):
        assert isinstance(head.layer, Yolo)
        yolo = replace(head.layer, all_anchors=anchors, mask=mask)
        layers[head.index - 1 : head.index + 1] = zoo.yolo_head(yolo)
    up = (Route((-3,)), Conv(64, 1), Upsample(), Route((-1, skip)), Conv(128))
    return (*layers, *up, *zoo.yolo_head(replace(yolo, mask=(0, 1, 2))))


def residual_tiny(classes: int) -> Layers:
    """YOLOv3-tiny with shortcuts (partial residual network)."""
    anchors = zoo.in_pixels(zoo.TINY_ANCHORS)
    fine, coarse = (zoo.yolo_head(Yolo(anchors, mask, classes, ignore_thresh=0.7)) for mask in ((1, 2, 3), (3, 4, 5)))
    grow = zoo.yolov3_tiny(classes, zoo.TINY_ANCHORS)[:12]
    neck = (Conv(512), Shortcut(-3, "leaky"), Conv(256, 1), Conv(256), Shortcut(-2, "leaky"))
    up = (Route((-4,)), Conv(128, 1), Upsample(), Shortcut(8, "leaky"), Conv(128), Shortcut(-3, "leaky"))
    return (*grow, *neck, *coarse, *up, Shortcut(8, "leaky"), *fine)


def seven_tiny(classes: int) -> Layers:
    """YOLOv7-tiny: blocks whose layers are all concatenated (ELAN), logistic maps and new_coords."""
    anchors = zoo.in_pixels(zoo.YOLOV3_ANCHORS)

    def block(narrow: int) -> Layers:
        start = (Conv(narrow, 1), Route((-2,)), Conv(narrow, 1))
        return (*start, Conv(narrow), Conv(narrow), Route((-5, -3, -2, -1)), Conv(2 * narrow, 1))

    def end(source: int, filters: int, mask: tuple[int, ...]) -> Layers:
        yolo = Yolo(anchors, mask, classes, scale_x_y=2, new_coords=True, ignore_thresh=0.7, iou_thresh=0.2,
                    iou_loss="ciou", iou_normalizer=0.05, cls_normalizer=0.5, max_delta=2, objectness_smooth=True,
                    nms_kind="diounms")  # fmt: skip
        return (Route((source,)), Conv(filters), Conv(yolo.channels, 1, 1, False, "logistic"), yolo)

    trunk = (Conv(32, stride=2), Conv(64, stride=2), *block(32), MaxPool(), *block(64), MaxPool(), *block(128),
             MaxPool(), *block(256))  # fmt: skip
    pools = (MaxPool(5, 1), Route((-2,)), MaxPool(9, 1), Route((-4,)), MaxPool(13, 1), Route((-1, -3, -5, -6)))
    neck = (Conv(256, 1), Route((-2,)), Conv(256, 1), *pools, Conv(256, 1), Route((-10, -1)), Conv(256, 1))
    up = ((Conv(n, 1), Upsample(), Route((skip,)), Conv(n, 1), Route((-1, -3)), *block(n // 2))
          for n, skip in ((128, 24), (64, 16)))  # fmt: skip
    down = ((Conv(n, stride=2), Route((-1, skip)), *block(n // 2)) for n, skip in ((128, 56), (256, 44)))
    ends = ((68, 128, (0, 1, 2)), (77, 256, (3, 4, 5)), (86, 512, (6, 7, 8)))
    return (*trunk, *neck, *(x for each in (*up, *down) for x in each), *(x for each in ends for x in end(*each)))


def four_csp(classes: int, depths: tuple[int, int, int, int], repeats: int, width: float = 1) -> Layers:
    """Scaled YOLOv4 (YOLOv4-CSP): cross-stage blocks in the neck as well, logistic maps and new_coords.

    depths: residual blocks of the four last stages of the trunk; repeats: of the convolutions of a block of the neck.
    """
    anchors, found = zoo.in_pixels(zoo.YOLOV4_ANCHORS), []
    pools = (MaxPool(5, 1), Route((-2,)), MaxPool(9, 1), Route((-4,)), MaxPool(13, 1), Route((-1, -3, -5, -6)))
    ends: dict[int, int] = {}

    def block(n: int) -> Layers:
        """Half of the channels through more convolutions."""
        more = (Conv(n, 1), Conv(n)) * repeats
        return (Conv(n, 1), Conv(n, 1), Route((-2,)), *more, Route((-1, -2 * repeats - 2)), Conv(n, 1))

    found += [Conv(32), *zoo.residual(64, 1)]
    for n, depth in zip((128, 256, 512, 1024), depths, strict=True):
        found += zoo.cross_stage(n, depth)
        ends[n] = len(found) - 1
    more = (Conv(512, 1), Conv(512)) * (repeats - 1)
    found += [Conv(512, 1), Route((-2,)), Conv(512, 1), Conv(512), Conv(512, 1), *pools, *more,
              Route((-1, -9 - 2 * repeats)), Conv(512, 1)]  # fmt: skip
    coarse = len(found) - 1
    found += [Conv(256, 1), Upsample(), Route((ends[512],)), Conv(256, 1), Route((-1, -3)), *block(256)]
    middle = len(found) - 1
    found += [Conv(128, 1), Upsample(), Route((ends[256],)), Conv(128, 1), Route((-1, -3)), *block(128)]
    for n, mask, skip in ((256, (0, 1, 2), middle), (512, (3, 4, 5), coarse), (1024, (6, 7, 8), None)):
        yolo = Yolo(anchors, mask, classes, scale_x_y=2, new_coords=True, ignore_thresh=0.7, iou_thresh=0.2,
                    iou_loss="ciou", iou_normalizer=0.05, cls_normalizer=0.5, max_delta=5, objectness_smooth=True,
                    nms_kind="diounms")  # fmt: skip
        found += [Conv(n), Conv(yolo.channels, 1, 1, False, "logistic"), yolo]
        if skip is not None:
            found += [Route((-4,)), Conv(n, stride=2), Route((-1, skip)), *block(n)]
    return tuple(
        replace(x, filters=int(width * x.filters), activation="mish")
        if isinstance(x, Conv) and x.batch_normalize
        else x
        for x in found
    )


def with_heads(layers: Layers, activation: Activation = "linear", **changes: Any) -> Layers:
    """With other settings of the yolo layers and the activation of the convolutions before them."""
    found = list(layers)
    for head in heads_of(layers):
        assert isinstance(head.layer, Yolo)
        yolo = replace(head.layer, **changes)
        found[head.index - 1 : head.index + 1] = Conv(yolo.channels, 1, 1, False, activation), yolo
    return tuple(found)


def first_test() -> Layers:
    """YOLOv1-tiny of 2015: without batch norm, at 224 pixels."""
    grow = tuple(layer for filters in (16, 32, 64, 128, 256) for layer in (Conv(filters), MaxPool()))
    layers = (*grow, Conv(512), Conv(1024), Conv(1024), Conv(256), Connected(1470, "linear"), Detection(20, 7, 2))
    return fitted(without_norm(layers), Shape(3, 224, 224))


TINY_3, TINY_4 = (zoo.detector(f"yolov{n}_tiny", 80, zoo.TINY_ANCHORS) for n in (3, 4))
V3, V4 = zoo.yolov3(80, zoo.YOLOV3_ANCHORS), zoo.yolov4(80, zoo.YOLOV4_ANCHORS)
PUBLISHED_TINY_4 = zoo.yolov4_tiny(80, zoo.TINY_ANCHORS, fine_mask=(1, 2, 3))
NETWORKS: dict[str, Layers] = {
    "yolov1, yolo, yolo.train": zoo.yolov1(20),
    "yolo2": without_dropout(zoo.yolov1(20)),
    "yolo-coco": without_dropout(zoo.yolov1(80)),
    "yolo-small": yolo_small(),
    "t1.test": first_test(),
    "yolov1-tiny, tiny-yolo (v1)": zoo.yolov1_tiny(20),
    "tiny-coco": zoo.yolov1_tiny(80),
    "xyolo.test": xyolo(),
    "yolov2, yolo (v2)": zoo.yolov2(80, zoo.COCO_ANCHORS),
    "yolov2-voc, yolo-voc": zoo.yolov2(20, zoo.VOC_ANCHORS),
    "yolo.2.0": zoo.yolov2_2016(80, zoo.COCO_ANCHORS),
    "yolo-voc.2.0": zoo.yolov2_2016(20, zoo.VOC_ANCHORS),
    "yolov2-tiny": zoo.yolov2_tiny(80, zoo.COCO_ANCHORS),
    "tiny-yolo (v2)": zoo.yolov2_tiny_voc(80, zoo.COCO_ANCHORS),
    "yolov2-tiny-voc, tiny-yolo-voc": zoo.yolov2_tiny_voc(20, zoo.VOC_ANCHORS),
    "tiny-yolo_xnor": binary(zoo.yolov2_tiny_voc(80, zoo.COCO_ANCHORS), 1, 7),
    "yolo9000 (without its tree)": (*zoo.backbone(), *zoo.head(9418, NINE_THOUSAND)),
    "yolov3, yolov3.coco-giou-12": V3,
    "yolov3-voc, yolov3-voc.yolov3-giou-40": zoo.yolov3(20, zoo.YOLOV3_ANCHORS),
    "yolov3-openimages": zoo.yolov3(601, zoo.YOLOV3_ANCHORS),
    "yolov3-spp": pooled(80),
    "yolov3-tiny": TINY_3,
    "yolov3-tiny_obj": zoo.yolov3_tiny(1, zoo.TINY_ANCHORS),
    "yolov3-tiny_3l": three_heads(TINY_3, zoo.YOLOV3_ANCHORS, 6),
    "yolov3-tiny-prn": residual_tiny(80),
    "yolov3-tiny_xnor": binary(binary(TINY_3, 1, 7), 10, 11),
    "yolov4, yolov4-custom": V4,
    "Gaussian_yolov3_BDD": with_heads(zoo.yolov3(10, zoo.YOLOV3_ANCHORS), gaussian=True),
    "cd53paspp-gamma": leaky(V4),
    "yolov4_new": with_heads(V4, "logistic", new_coords=True, scale_x_y=2),
    "yolov4-csp": four_csp(80, (2, 8, 8, 4), 2),
    "yolov4x-mish": four_csp(80, (3, 10, 10, 5), 3, 1.25),
    "yolov4-tiny, yolov4-tiny-custom": PUBLISHED_TINY_4,
    "yolov4-tiny-3l": three_heads(TINY_4, zoo.YOLOV4_ANCHORS, 15),
    "yolo-fastest-1.1": zoo.yolo_fastest(80, zoo.FASTEST_ANCHORS),
    "yolo-fastest-1.1-xl": zoo.yolo_fastest_xl(80, zoo.FASTEST_ANCHORS),
    "yolov7-tiny": seven_tiny(80),
}
"""Networks whose cfgs are tuples of lookonce's own networks, or little more. Names: of the cfgs."""


class Row(NamedTuple):
    """What is known of one cfg."""

    name: str
    floats: int
    size: int
    """Bytes of its weights."""
    again: bool
    """Whether text and bytes are the same after reading and writing."""
    opencv: str
    agrees: bool


def clouds(count: int, size: tuple[int, int]) -> torch.Tensor:
    """Return images [B, 3, H, W] of random shapes: on noise alone every cell of a coarse map would be alike."""
    random = torch.Generator().manual_seed(0)
    parts = [torch.rand(count, 3, cells, cells, generator=random) for cells in (3, 7, 24)]
    return sum(torch.nn.functional.interpolate(part, size[::-1], mode="bilinear") for part in parts) / len(parts)  # type: ignore[return-value]


def randomised(layers: Layers, size: tuple[int, int]) -> Network:
    """Return a network with random weights whose batch norms fit its maps, and whose raw maps have a deviation of 1."""
    torch.manual_seed(0)
    network = Network(layers)
    for norm in network.norms():
        norm.momentum = 1.0
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.normal_(1, 0.3)  # mostly linear: a random network else multiplies the rounding of each layer
    images = clouds(8, size)
    with torch.no_grad():
        network.train()(images)
        for conv, raw in zip(network.head_convolutions(), network.eval()(images), strict=True):
            conv.weight /= (raw if raw.min() < 0 or raw.max() > 1 else raw.logit()).std()
    return network


def against_opencv(network: Network, cfg: Path, weights: Path, size: tuple[int, int]) -> tuple[str, bool]:
    """Compare with OpenCV on one random image; return what to print, and whether they agree."""
    if any(isinstance(layer, Conv) and layer.xnor for layer in network.layers):
        return "takes xnor=1 for ordinary", True
    detection = isinstance(network.layers[-1], Detection)
    text = cfg.read_text().partition("[detection]")[0]  # the numbers before the head
    cfg.write_text(re.sub(r"^thresh=.*", "thresh=0.001", text, flags=re.M))  # OpenCV's threshold of a region's scores
    given = clouds(9, size)[8:].numpy()
    try:
        theirs = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
        theirs.enableWinograd(False)  # with it its convolutions are 5 times further from those in float64 than ours
        theirs.setInput(given)
        outputs = theirs.forward(theirs.getUnconnectedOutLayersNames())
    except cv2.error as error:
        return f"does not run it: {str(error.err)[:60].strip()}", True
    network.sigmas = [Sigma(1e-6, 0)] * len(network.sigmas)
    with torch.no_grad():
        raws = network(torch.from_numpy(given))
    if detection:
        wrong = np.abs(outputs[0].ravel() - raws[0].numpy().ravel()).max() / np.abs(outputs[0]).max()
        return f"numbers {wrong:.0e} of the largest", bool(wrong < TOLERANCE)
    count, box_error, score_error = 0, 0.0, 0.0
    for head, raw, rows in zip(network.heads, raws, outputs, strict=True):
        boxes, scores = in_opencvs_order(decode((raw,), (head,)), head, raw)
        shown = rows.reshape(-1, rows.shape[-1])
        above = shown[:, 5:] > 0  # the others are below OpenCV's own threshold
        cx, cy, w, h = shown[:, :4].T * np.array([*size, *size])[:, None]
        theirs_boxes = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1)
        side = np.maximum(np.maximum(w, h), max(size))[:, None]
        count += int(above.any(1).sum())
        box_error = max(box_error, (np.abs(boxes - theirs_boxes) / side).max())
        score_error = max(score_error, np.abs(scores - shown[:, 5:])[above].max(initial=0))
    agrees = count > 0 and max(box_error, score_error) < TOLERANCE
    return f"boxes {box_error:.0e}, {count} with scores {score_error:.0e}", bool(agrees)


def in_opencvs_order(found: Predictions, head: PlacedHead, raw: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes [N, 4] and scores [N, C] of a head's only image by row, column and anchor."""
    rows, cols = raw.shape[-2:]

    def turned(values: torch.Tensor) -> np.ndarray:
        by_cell = values[0].reshape(len(head.layer.anchors), rows, cols, -1).permute(1, 2, 0, 3)
        return by_cell.reshape(len(values[0]), -1).numpy()

    return turned(found.boxes), turned(found.objectness[..., None] * found.class_prob)


def small_size(layers: Layers) -> tuple[int, int]:
    """Return a small input that the network takes: that of its weights, or three cells of its coarsest map a side."""
    for head in heads_of(layers):
        if isinstance(head.layer, Detection):
            return head.layer.input_size
    whole = stride(layers)
    return 3 * whole, 3 * whole


def row(name: str, layers: Layers, folder: Path) -> Row:
    """Write, read and run one network."""
    size, cfg, weights, again = small_size(layers), *(folder / end for end in ("n.cfg", "n.weights", "again.weights"))
    text = write_cfg(Cfg(layers, *size))
    cfg.write_text(text)
    save_darknet(randomised(layers, size), cfg, weights, input_size=size)
    network = load_darknet(cfg, weights)
    save_darknet(network, folder / "again.cfg", again)
    same = read_cfg(text).layers == layers and (folder / "again.cfg").read_text() == cfg.read_text()
    same &= again.read_bytes() == weights.read_bytes()
    again.unlink()
    floats, length = num_floats(layers), weights.stat().st_size
    assert length == Header().length + 4 * floats
    opencv, agrees = against_opencv(network, cfg, weights, size)
    weights.unlink()
    return Row(name, floats, length, same, opencv, agrees)


def networks(folders: list[Path]) -> Iterator[tuple[str, Layers | UserError]]:
    """Yield name and layers of each network; an error for a cfg that cannot be read."""
    if not folders:
        yield from NETWORKS.items()
    for file in sorted(file for folder in folders for file in folder.glob("*.cfg")):
        try:
            layers = read_cfg(read_text(file), str(file)).layers
        except UserError as error:
            yield file.stem, error
        else:
            if heads_of(layers):
                yield file.stem, layers


def main() -> int:
    """Print the table."""
    print(f"OpenCV {cv2.__version__}\n")
    print("| cfg | floats | bytes of .weights | read and written back | OpenCV |\n|---|---|---|---|---|")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, layers in networks(list(map(Path, sys.argv[1:]))):
            if isinstance(layers, UserError):
                print(f"| {name} | | | no: {layers} | |", flush=True)
                failed = True
                continue
            found = row(name, layers, Path(folder))
            failed |= not (found.again and found.agrees)
            print(f"| {name} | {found.floats:,} | {found.size:,} | {'yes' if found.again else 'NO'} | "
                  f"{found.opencv}{'' if found.agrees else ' DIFFERS'} |", flush=True)  # fmt: skip
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
