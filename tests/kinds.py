"""Small networks of every kind of head, for squares of 96 x 96 px: what each command must work with."""

from lookonce.model.layers import (
    Connected,
    Conv,
    Detection,
    Dropout,
    Layer,
    Local,
    MaxPool,
    Region,
    Route,
    Shortcut,
    Upsample,
    Yolo,
)
from lookonce.model.sizes import Shape, fitted

SIDE = 96
ANCHORS = ((24.0, 24.0), (34.0, 34.0), (44.0, 44.0), (58.0, 58.0))
"""(w, h) in input pixels."""


def _before(head: Region | Yolo, activation: str = "linear") -> tuple[Layer, ...]:
    return Conv(head.channels, 1, batch_normalize=False, activation=activation), head  # type: ignore[arg-type]


def regions(classes: int = 2) -> tuple[Layer, ...]:
    """YOLOv2 with a second head on the finer map."""
    coarse, fine = (Region(tuple((w / 16, h / 16) for w, h in part), classes) for part in (ANCHORS[2:], ANCHORS[:2]))
    grow = [layer for filters in (8, 16, 32) for layer in (Conv(filters), MaxPool())]
    return (*grow, Conv(32), MaxPool(), Conv(32), *_before(coarse), Route((-4,)), Conv(32, stride=2), *_before(fine))


def version_1(classes: int = 2) -> tuple[Layer, ...]:
    """YOLOv1 with a local and a connected layer: one input size, no anchors."""
    grow = [layer for filters in (8, 16, 16, 32) for layer in (Conv(filters), MaxPool())]
    head = Detection(classes, SIDE // 16, 2, sqrt=True, rescore=True, noobject_scale=0.5, coord_scale=5)
    return fitted((*grow, Conv(32), Local(8), Dropout(), Connected(head.channels, "linear"), head),
                  Shape(3, SIDE, SIDE))  # fmt: skip


def version_3(classes: int = 2) -> tuple[Layer, ...]:
    """YOLOv3: residual additions, and a second head on an upsampled map."""
    coarse, fine = (Yolo(ANCHORS, mask, classes, ignore_thresh=0.7) for mask in ((2, 3), (0, 1)))
    grow = (Conv(8), Conv(16, stride=2), Conv(16, 1), Conv(16), Shortcut(-3), Conv(32, stride=2))
    return (*grow, Conv(32, stride=2), Conv(32, 1), Conv(32), Shortcut(-3), Conv(32, stride=2), *_before(coarse),
            Route((-3,)), Conv(16, 1), Upsample(), Route((-1, 9)), Conv(32), *_before(fine))  # fmt: skip


def version_4(classes: int = 2, gaussian: bool = False) -> tuple[Layer, ...]:
    """YOLOv4: groups of a map, a depthwise convolution, an IoU loss; gaussian: with uncertainties, for detection."""
    coarse, fine = (
        Yolo(ANCHORS, mask, classes, gaussian, 1.05, ignore_thresh=0.7, iou_loss="ciou", iou_normalizer=0.07,
             nms_kind="greedynms") for mask in ((2, 3), (0, 1))
    )  # fmt: skip
    grow = (Conv(16, stride=2), Conv(32, stride=2), Route((-1,), 2, 1), Conv(16), Route((-1, -3)), MaxPool())
    return (*grow, Conv(48, groups=48, activation="mish"), Conv(32, 1), MaxPool(), Conv(32), *_before(coarse),
            Route((-3,)), Conv(16, 1), Upsample(), Route((-1, 7)), Conv(32), *_before(fine))  # fmt: skip


def scaled_4(classes: int = 2) -> tuple[Layer, ...]:
    """Scaled YOLOv4: its coordinates come from a logistic convolution."""
    head = Yolo(ANCHORS, (0, 1, 2, 3), classes, scale_x_y=2.0, new_coords=True, iou_loss="ciou", iou_normalizer=0.05)
    grow = [layer for filters in (8, 16, 32, 32) for layer in (Conv(filters), MaxPool())]
    return (*grow, Conv(32, activation="swish"), *_before(head, "logistic"))


KINDS = {"regions": regions, "v1": version_1, "v3": version_3, "v4": version_4, "scaled v4": scaled_4}
"""Networks that can be trained, by name."""
