"""Known networks as tuples of layers, in the order of the papers and of Darknet's cfg files.

Sources: YOLO9000, section 2 and table 6; darknet/cfg/{yolov2,yolov2-voc,yolov2-tiny,yolov2-tiny-voc,darknet19}.cfg,
and yolo-voc.2.0.cfg for the network of 2016.
"""

from __future__ import annotations

from lookonce.choices import choose
from lookonce.model.layers import AvgPool, Conv, Layer, MaxPool, Region, Reorg, Route, Softmax

STRIDE = 32
"""Input pixels of a cell, in every detector of the zoo."""
AnchorSizes = tuple[tuple[float, float], ...]
"""(w, h) of each anchor of a region layer, cells."""
VOC_ANCHORS: AnchorSizes = (
    (1.3221, 1.73145),
    (3.19275, 4.00944),
    (5.05587, 8.09892),
    (9.47112, 4.84053),
    (11.2364, 10.0071),
)
"""(w, h) in cells of 32 px at 416. Source: darknet/cfg/yolov2-voc.cfg."""
COCO_ANCHORS: AnchorSizes = (
    (0.57273, 0.677385),
    (1.87446, 2.06253),
    (3.33843, 5.47434),
    (7.88282, 3.52778),
    (9.77052, 9.16828),
)
"""(w, h) in cells of 32 px at 416. Source: darknet/cfg/yolov2.cfg."""


def stage(wide: int, repeats: int) -> tuple[Layer, ...]:
    """Return one Darknet-19 stage: 3x3 wide, then (1x1 narrow, 3x3 wide) repeated."""
    return (Conv(wide), *(Conv(wide // 2, size=1), Conv(wide)) * repeats)


def backbone() -> tuple[Layer, ...]:
    """Return Darknet-19 without its classifier: 18 convolutions, stride 32, 1024 channels."""
    return (
        *(Conv(32), MaxPool(), Conv(64), MaxPool()),
        *(*stage(128, 1), MaxPool(), *stage(256, 1), MaxPool()),
        *(*stage(512, 2), MaxPool(), *stage(1024, 2)),
    )


def head(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the 1x1 convolution of A * (5 + C) filters and the region layer that reads it."""
    region = Region(anchors, classes)
    return (Conv(region.channels, size=1, batch_normalize=False, activation="linear"), region)


def yolov2(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return YOLOv2: backbone, two convolutions, and the stride-16 map passed through 64 channels (section 2)."""
    join = (Route((-9,)), Conv(64, size=1), Reorg(2), Route((-1, -4)))
    return (*backbone(), Conv(1024), Conv(1024), *join, Conv(1024), *head(classes, anchors))


def yolov2_2016(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the first YOLOv2, as in the paper: all 512 channels of the stride-16 map are passed through."""
    join = (Route((-9,)), Reorg(2), Route((-1, -3)))
    return (*backbone(), Conv(1024), Conv(1024), *join, Conv(1024), *head(classes, anchors))


def yolov2_tiny(classes: int, anchors: AnchorSizes, last: int = 512) -> tuple[Layer, ...]:
    """Return nine convolutions. last: filters of the eighth, 512 in the COCO form and 1024 in the VOC form."""
    grow = tuple(layer for filters in (16, 32, 64, 128, 256) for layer in (Conv(filters), MaxPool()))
    return (*grow, Conv(512), MaxPool(2, stride=1), Conv(1024), Conv(last), *head(classes, anchors))


def yolov2_tiny_voc(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the VOC form of yolov2_tiny: 1024 filters in the eighth convolution."""
    return yolov2_tiny(classes, anchors, last=1024)


def darknet19(classes: int = 1000) -> tuple[Layer, ...]:
    """Return the classifier of YOLO9000 table 6."""
    return (*backbone(), Conv(classes, size=1, batch_normalize=False, activation="linear"), AvgPool(), Softmax())


DETECTORS = {
    "yolov2": yolov2,
    "yolov2_2016": yolov2_2016,
    "yolov2_tiny": yolov2_tiny,
    "yolov2_tiny_voc": yolov2_tiny_voc,
}


def detector(name: str, classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the layers of a known detector by name. Raises ConfigError for another name."""
    return DETECTORS[choose(name, DETECTORS, "network")](classes, anchors)
