"""Known networks as tuples of layers, in the order of the papers and of Darknet's cfg files.

Sources: the papers of each; darknet/cfg/{yolov1,yolov1-tiny,yolov2,yolov2-voc,yolov2-tiny,yolov2-tiny-voc,darknet19,
yolov3,yolov3-tiny}.cfg, yolo-voc.2.0.cfg for the network of 2016, {yolov4,yolov4-tiny}.cfg of Darknet's fork, and
yolo-fastest-1.1{,-xl}.cfg of dog-qiuqiu/Yolo-Fastest. yolov2_small is our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from lookonce.choices import choose
from lookonce.errors import ConfigError
from lookonce.model.layers import (
    AvgPool,
    Connected,
    Conv,
    Detection,
    Dropout,
    Layer,
    Local,
    MaxPool,
    Region,
    Reorg,
    Route,
    Shortcut,
    Softmax,
    Upsample,
    Yolo,
)
from lookonce.model.sizes import Shape, fitted

STRIDE = 32
"""Input pixels of a cell in which anchors are given."""
AnchorSizes = tuple[tuple[float, float], ...]
"""(w, h) of each anchor, cells of STRIDE pixels."""
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


YOLOV3_ANCHORS: AnchorSizes = (
    (10 / 32, 13 / 32), (16 / 32, 30 / 32), (33 / 32, 23 / 32), (30 / 32, 61 / 32), (62 / 32, 45 / 32),
    (59 / 32, 119 / 32), (116 / 32, 90 / 32), (156 / 32, 198 / 32), (373 / 32, 326 / 32),
)  # fmt: skip
"""Source: darknet/cfg/yolov3.cfg, there in pixels."""
YOLOV4_ANCHORS: AnchorSizes = (
    (12 / 32, 16 / 32), (19 / 32, 36 / 32), (40 / 32, 28 / 32), (36 / 32, 75 / 32), (76 / 32, 55 / 32),
    (72 / 32, 146 / 32), (142 / 32, 110 / 32), (192 / 32, 243 / 32), (459 / 32, 401 / 32),
)  # fmt: skip
"""Source: yolov4.cfg, there in pixels."""
TINY_ANCHORS: AnchorSizes = (
    (10 / 32, 14 / 32), (23 / 32, 27 / 32), (37 / 32, 58 / 32), (81 / 32, 82 / 32), (135 / 32, 169 / 32),
    (344 / 32, 319 / 32),
)  # fmt: skip
"""Source: yolov3-tiny.cfg and yolov4-tiny.cfg, there in pixels."""
FASTEST_ANCHORS: AnchorSizes = (
    (12 / 32, 18 / 32), (37 / 32, 49 / 32), (52 / 32, 132 / 32), (115 / 32, 73 / 32), (119 / 32, 199 / 32),
    (242 / 32, 238 / 32),
)  # fmt: skip
"""Source: yolo-fastest-1.1.cfg, there in pixels at 320."""


POOLS: tuple[Layer, ...] = (
    *(MaxPool(5, 1), Route((-2,)), MaxPool(9, 1), Route((-4,)), MaxPool(13, 1)),
    Route((-1, -3, -5, -6)),
)
"""A map beside its pools of three sizes. Source: yolov4.cfg."""


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


def yolov1(classes: int, boxes: int = 3, size: int = 448) -> tuple[Layer, ...]:
    """Return YOLO (2016, figure 3), with a local layer in place of the first connected one. size: of its only input."""
    narrow = (Conv(256, 1), Conv(512))
    trunk = (
        *(Conv(64, 7, 2), MaxPool(), Conv(192), MaxPool()),
        *(Conv(128, 1), Conv(256), Conv(256, 1), Conv(512), MaxPool()),
        *(*narrow * 4, Conv(512, 1), Conv(1024), MaxPool()),
        *(*(Conv(512, 1), Conv(1024)) * 2, Conv(1024), Conv(1024, stride=2), Conv(1024), Conv(1024)),
    )
    return connected_head((*trunk, Local(256), Dropout()), classes, boxes, size)


def yolov1_tiny(classes: int, boxes: int = 2, size: int = 448) -> tuple[Layer, ...]:
    """Return the small network of YOLO (2016, section 4.1): eight convolutions. size: of its only input."""
    grow = tuple(layer for filters in (16, 32, 64, 128, 256, 512) for layer in (Conv(filters), MaxPool()))
    return connected_head((*grow, Conv(1024), Conv(256)), classes, boxes, size)


def connected_head(trunk: tuple[Layer, ...], classes: int, boxes: int, size: int) -> tuple[Layer, ...]:
    """Return a trunk of stride 64 with a connected layer and YOLOv1's detection layer."""
    head = Detection(classes, size // 64, boxes, sqrt=True, rescore=True, noobject_scale=0.5, coord_scale=5)
    return fitted((*trunk, Connected(head.channels, "linear"), head), Shape(3, size, size))


def masks(anchors: AnchorSizes, heads: int) -> list[tuple[int, ...]]:
    """Return the anchors of each head, finest head first: a growing list is divided, the first heads have more.

    Raises ConfigError for fewer anchors than heads.
    """
    if len(anchors) < heads:
        raise ConfigError(f"anchors: {len(anchors)}; expected at least {heads}, one for each head of the network")
    each, more = divmod(len(anchors), heads)
    starts = [n * each + min(n, more) for n in range(heads + 1)]
    return [tuple(range(a, b)) for a, b in pairwise(starts)]


def yolo_head(yolo: Yolo) -> tuple[Layer, ...]:
    """Return the 1x1 convolution of A * (5 + C) filters and the yolo layer that reads it."""
    return (Conv(yolo.channels, size=1, batch_normalize=False, activation="linear"), yolo)


def in_pixels(anchors: AnchorSizes) -> AnchorSizes:
    """Return anchors in input pixels."""
    return tuple((w * STRIDE, h * STRIDE) for w, h in anchors)


def residual(wide: int, repeats: int) -> tuple[Layer, ...]:
    """Return one Darknet-53 stage: halved in size, then (1x1 narrow, 3x3 wide, added to what was before) repeated."""
    return (Conv(wide, stride=2), *(Conv(wide // 2, 1), Conv(wide), Shortcut(-3)) * repeats)


def yolov2_small(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the head of YOLOv2 on cells of 16 px, behind a small Darknet-53 whose last map is upsampled and joined.

    Our own, for training from random numbers on a CPU: more accurate than yolov2_tiny at 0.4 of its cost. Without the
    pools it does not see large objects whole (docs/experiments.md).
    """
    trunk = (Conv(16, stride=2), *residual(32, 1), *residual(64, 2), *residual(128, 2))
    coarse = (*residual(256, 1), Conv(128, 1), *POOLS, Conv(128, 1), Upsample())
    join = (Route((-1, -1 - len(coarse))), Conv(256))
    return (*trunk, *coarse, *join, *head(classes, tuple((2 * w, 2 * h) for w, h in anchors)))


def yolov3(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return YOLOv3 (2018, section 2): Darknet-53 and three heads, of strides 32, 16 and 8."""
    fine, middle, coarse = (
        yolo_head(Yolo(in_pixels(anchors), mask, classes, ignore_thresh=0.7)) for mask in masks(anchors, 3)
    )
    trunk = (Conv(32), *residual(64, 1), *residual(128, 2), *residual(256, 8), *residual(512, 8), *residual(1024, 4))

    def neck(wide: int) -> tuple[Layer, ...]:
        return (Conv(wide // 2, 1), Conv(wide)) * 3

    return (
        *(*trunk, *neck(1024), *coarse),
        *(Route((-4,)), Conv(256, 1), Upsample(), Route((-1, 61)), *neck(512), *middle),
        *(Route((-4,)), Conv(128, 1), Upsample(), Route((-1, 36)), *neck(256), *fine),
    )


def yolov3_tiny(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return YOLOv3-tiny: the trunk of YOLOv2-tiny and two heads, of strides 32 and 16."""
    fine, coarse = (yolo_head(Yolo(in_pixels(anchors), mask, classes, ignore_thresh=0.7)) for mask in masks(anchors, 2))
    grow = tuple(layer for filters in (16, 32, 64, 128, 256) for layer in (Conv(filters), MaxPool()))
    return (
        *(*grow, Conv(512), MaxPool(2, stride=1), Conv(1024), Conv(256, 1), Conv(512), *coarse),
        *(Route((-4,)), Conv(128, 1), Upsample(), Route((-1, 8)), Conv(256), *fine),
    )


def yolov4_yolo(classes: int, anchors: AnchorSizes, mask: tuple[int, ...], scale_x_y: float) -> Yolo:
    """Return a yolo layer with the settings of YOLOv4."""
    return Yolo(in_pixels(anchors), mask, classes, ignore_thresh=0.7, scale_x_y=scale_x_y, iou_loss="ciou",
                iou_normalizer=0.07, nms_kind="greedynms")  # fmt: skip


def mish(filters: int, size: int = 3, stride: int = 1) -> Conv:
    """Return a convolution with the activation of YOLOv4's backbone."""
    return Conv(filters, size, stride, activation="mish")


def cross_stage(wide: int, repeats: int) -> tuple[Layer, ...]:
    """Return one CSPDarknet-53 stage: half of its channels pass the residual blocks, half pass them by."""
    half = wide // 2
    block = (mish(half, 1), mish(half), Shortcut(-3))
    split = (mish(wide, stride=2), mish(half, 1), Route((-2,)), mish(half, 1))
    return (*split, *block * repeats, mish(half, 1), Route((-1, -4 - 3 * repeats)), mish(wide, 1))


def yolov4(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return YOLOv4 (2020, section 3.4): CSPDarknet-53, pools of three sizes, and a path up and down (PANet)."""
    fine, middle, coarse = (
        yolo_head(replace(yolov4_yolo(classes, anchors, mask, scale), iou_thresh=0.213, max_delta=5))
        for mask, scale in zip(masks(anchors, 3), (1.2, 1.1, 1.05), strict=True)
    )
    first = (mish(64, 3, 2), mish(64, 1), Route((-2,)), mish(64, 1), mish(32, 1), mish(64), Shortcut(-3), mish(64, 1),
             Route((-1, -7)), mish(64, 1))  # fmt: skip
    trunk = (mish(32), *first, *cross_stage(128, 2), *cross_stage(256, 8), *cross_stage(512, 8), *cross_stage(1024, 4))

    def neck(wide: int) -> tuple[Layer, ...]:
        return (Conv(wide // 2, 1), Conv(wide), Conv(wide // 2, 1), Conv(wide), Conv(wide // 2, 1))

    def up(narrow: int, skip: int) -> tuple[Layer, ...]:
        return (Conv(narrow, 1), Upsample(), Route((skip,)), Conv(narrow, 1), Route((-1, -3)), *neck(2 * narrow))

    def down(wide: int, skip: int) -> tuple[Layer, ...]:
        return (Route((-4,)), Conv(wide // 2, stride=2), Route((-1, skip)), *neck(wide), Conv(wide))

    pooled = (Conv(512, 1), Conv(1024), Conv(512, 1), *POOLS, Conv(512, 1), Conv(1024), Conv(512, 1))
    return (*trunk, *pooled, *up(256, 85), *up(128, 54), Conv(256), *fine, *down(512, -16), *middle, *down(1024, -37),
            *coarse)  # fmt: skip


def yolov4_tiny(classes: int, anchors: AnchorSizes, fine_mask: tuple[int, ...] = ()) -> tuple[Layer, ...]:
    """Return YOLOv4-tiny: three cross-stage blocks on half of the channels, and two heads, of strides 32 and 16.

    fine_mask: anchors of the finer head; empty: those that the coarser lacks. The published network has 1, 2, 3: it
    uses anchor 3 twice and never learns anchor 0.
    """
    small, large = masks(anchors, 2)
    fine, coarse = (
        yolo_head(yolov4_yolo(classes, anchors, mask, scale_x_y=1.05)) for mask in (fine_mask or small, large)
    )

    def block(wide: int) -> tuple[Layer, ...]:
        part = (Route((-1,), groups=2, group_id=1), Conv(wide // 2), Conv(wide // 2), Route((-1, -2)), Conv(wide, 1))
        return (Conv(wide), *part, Route((-6, -1)), MaxPool())

    trunk = (Conv(32, stride=2), Conv(64, stride=2), *block(64), *block(128), *block(256), Conv(512))
    return (
        *(*trunk, Conv(256, 1), Conv(512), *coarse),
        *(Route((-4,)), Conv(128, 1), Upsample(), Route((-1, 23)), Conv(256), *fine),
    )


def depthwise(channels: int, size: int = 3, stride: int = 1) -> Conv:
    """Return a convolution of each channel alone."""
    return Conv(channels, size, stride, groups=channels)


def inverted(wide: int, narrow: int, stride: int = 1) -> tuple[Layer, ...]:
    """Return the inverted block of MobileNetV2 (2018, section 3.3): widened, convolved by channels, narrowed."""
    return (Conv(wide, 1), depthwise(wide, stride=stride), Conv(narrow, 1, activation="linear"))


def inverted_residual(wide: int, narrow: int, dropout: float) -> tuple[Layer, ...]:
    """Return an inverted block that is added to what was before it."""
    return (*inverted(wide, narrow), Dropout(dropout), Shortcut(-5))


def yolo_fastest(classes: int, anchors: AnchorSizes, times: int = 1) -> tuple[Layer, ...]:
    """Return Yolo-Fastest 1.1 (2021): inverted residual blocks and two heads, of strides 32 and 16.

    times: 2 doubles the channels of the trunk, which makes it Yolo-Fastest 1.1 XL.
    """
    fine, coarse = (
        yolo_head(replace(yolov4_yolo(classes, anchors, mask, 1.0), ignore_thresh=0.5, iou_thresh=0.213))
        for mask in masks(anchors, 2)
    )
    dropout = 0.15 if times == 1 else 0.2

    def stage(first: int, narrow: int, stride: int, wide: int, repeats: int) -> tuple[Layer, ...]:
        blocks = inverted_residual(times * wide, times * narrow, dropout) * repeats
        return (*inverted(times * first, times * narrow, stride), *blocks)

    def separable(channels: int) -> tuple[Layer, ...]:
        return (depthwise(channels, 5), Conv(channels, 1, activation="linear")) * 2

    trunk = (Conv(8 * times, stride=2), *stage(8, 4, 1, 8, 1), *stage(24, 8, 2, 32, 2), *stage(32, 8, 2, 48, 2),
             *stage(48, 16, 1, 96, 4), *stage(96, 24, 2, 136, 4), *stage(136, 48, 2, 224, 5))  # fmt: skip
    pools = (MaxPool(3, 1), Route((-2,)), MaxPool(5, 1), Route((-4,)), MaxPool(9, 1), Route((-1, -3, -5, -6)))
    return (
        *(*trunk, *pools, Conv(96, 1), *separable(96), *coarse),
        *(Route((-7,)), Upsample(), Route((-1, 80)), *separable(96 + 24 * times), *fine),
    )


def yolo_fastest_xl(classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the wider form of yolo_fastest."""
    return yolo_fastest(classes, anchors, times=2)


DETECTORS: dict[str, Callable[[int, AnchorSizes], tuple[Layer, ...]]] = {
    "yolov1": lambda classes, _: yolov1(classes),
    "yolov1_tiny": lambda classes, _: yolov1_tiny(classes),
    "yolov2": yolov2,
    "yolov2_2016": yolov2_2016,
    "yolov2_small": yolov2_small,
    "yolov2_tiny": yolov2_tiny,
    "yolov2_tiny_voc": yolov2_tiny_voc,
    "yolov3": yolov3,
    "yolov3_tiny": yolov3_tiny,
    "yolov4": yolov4,
    "yolov4_tiny": yolov4_tiny,
    "yolo_fastest": yolo_fastest,
    "yolo_fastest_xl": yolo_fastest_xl,
}
"""Known detectors by name. Those of YOLOv1 have no anchors and run at 448 x 448 only."""


def detector(name: str, classes: int, anchors: AnchorSizes) -> tuple[Layer, ...]:
    """Return the layers of a known detector by name. Raises ConfigError for another name.

    anchors: of all heads by growing size, in cells of STRIDE pixels; the heads of YOLOv3 and v4 divide them.
    """
    return DETECTORS[choose(name, DETECTORS, "network")](classes, anchors)


OWN_ANCHORS: dict[str, AnchorSizes] = {
    "yolov1": (),
    "yolov1_tiny": (),
    "yolov3": YOLOV3_ANCHORS,
    "yolov3_tiny": TINY_ANCHORS,
    "yolov4": YOLOV4_ANCHORS,
    "yolov4_tiny": TINY_ANCHORS,
    "yolo_fastest": FASTEST_ANCHORS,
    "yolo_fastest_xl": FASTEST_ANCHORS,
}
"""Published anchors of known detectors; others use VOC_ANCHORS. Those of YOLOv1 have none."""


def own_anchors(name: str) -> AnchorSizes:
    """Return the anchors with which a known detector was published. Raises ConfigError for another name."""
    return OWN_ANCHORS.get(choose(name, DETECTORS, "network"), VOC_ANCHORS)
