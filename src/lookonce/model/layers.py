"""A network as data: a tuple of frozen records, one a layer, in Darknet's order and words. No torch here.

Source: darknet/src/parser.c (names, defaults) of the original and of its popular fork.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

IouLoss = Literal["mse", "iou", "giou", "diou", "ciou"]
NmsKind = Literal["", "default", "greedynms", "diounms"]
Activation = Literal[
    "leaky", "linear", "relu", "logistic", "mish", "swish", "relu6", "elu", "selu", "tanh", "ramp", "hard_mish"
]
LUMA = (77 / 256, 150 / 256, 29 / 256)
"""Weights of red, green and blue in grey. Source: stb_image.h, stbi__compute_y, with which Darknet loads images."""


@dataclass(frozen=True)
class Conv:
    """Convolution, then batch norm (or a bias), then the activation."""

    filters: int
    size: int = 3
    stride: int = 1
    batch_normalize: bool = True
    activation: Activation = "leaky"
    groups: int = 1
    """Groups of channels that are convolved alone; as many as channels: a depthwise convolution."""
    dilation: int = 1
    """Distance of the cells of a window. It widens the padding as well."""
    padding: int | None = None
    """Cells added at each side; None: size // 2."""
    share: int | None = None
    """Index of the convolution whose weights and batch norm this one uses; None: its own."""
    xnor: bool = False
    """Its input counts by its signs alone, and its weights by their signs and each filter's mean |w|. For detection."""

    @property
    def pad(self) -> int:
        """Cells added at each side of the map."""
        return self.dilation * (self.size // 2 if self.padding is None else self.padding)


@dataclass(frozen=True)
class Local:
    """A convolution with other weights at every cell, then a bias of every number, then the activation."""

    filters: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    activation: Activation = "leaky"
    map: tuple[int, int] = (0, 0)
    """(height, width) of the map before it, which its weights are made for."""

    @property
    def cells(self) -> tuple[int, int]:
        """(height, width) of its output."""
        height, width = ((side + 2 * self.padding - self.size) // self.stride + 1 for side in self.map)
        return height, width


@dataclass(frozen=True)
class Connected:
    """A fully connected layer: every output reads every number of the map before it."""

    output: int
    activation: Activation = "leaky"
    batch_normalize: bool = False
    inputs: int = 0
    """Numbers in the map before it, which its weights are made for: the network has one input size."""


@dataclass(frozen=True)
class Batchnorm:
    """Batch norm as a layer of its own."""


@dataclass(frozen=True)
class MaxPool:
    """Maximum over a window; cells outside the map do not count."""

    size: int = 2
    stride: int = 2
    padding: int | None = None
    """Cells added to each side of length: the smaller half before the map. None: size - 1."""

    @property
    def pad(self) -> tuple[int, int]:
        """Cells before and after the map."""
        padding = self.size - 1 if self.padding is None else self.padding
        return padding // 2, padding - padding // 2


@dataclass(frozen=True)
class LocalAvgPool:
    """Mean over the cells of a window that lie in the map."""

    size: int = 2
    stride: int = 2


@dataclass(frozen=True)
class Route:
    """Concatenates the outputs of other layers along channels, in the listed order."""

    layers: tuple[int, ...]
    """Negative: relative to this layer; else the index in the network."""
    groups: int = 1
    """Take one of this many equal parts of the channels of each layer,"""
    group_id: int = 0
    """namely this one, counted from 0."""


@dataclass(frozen=True)
class Shortcut:
    """Adds the output of another layer; of maps with different channels the first ones."""

    source: int
    """Negative: relative to this layer; else the index in the network."""
    activation: Activation = "linear"


@dataclass(frozen=True)
class ScaleChannels:
    """Multiplies each channel of another layer by one number of the map before this layer (squeeze and excitation)."""

    source: int
    activation: Activation = "linear"


@dataclass(frozen=True)
class Sam:
    """Multiplies the output of another layer by the map before this layer (spatial attention)."""

    source: int
    activation: Activation = "linear"


@dataclass(frozen=True)
class Upsample:
    """Repeats each cell stride x stride times, multiplied by scale."""

    stride: int = 2
    scale: float = 1.0


@dataclass(frozen=True)
class Crop:
    """The centre of the image, with values from -1 to 1 (adjust), as in early networks."""

    height: int
    width: int
    adjust: bool = True


@dataclass(frozen=True)
class SpaceToDepth:
    """Folds space into channels as TensorFlow's space_to_depth does: Darknet's [reorg3d]."""

    stride: int = 2


@dataclass(frozen=True)
class Reorg:
    """Darknet's fold of space into channels (not space_to_depth: see network.reorg)."""

    stride: int = 2


@dataclass(frozen=True)
class AvgPool:
    """Mean over the whole map."""


@dataclass(frozen=True)
class Dropout:
    """Sets values to zero at random in training; passes them on in detection."""

    probability: float = 0.5


@dataclass(frozen=True)
class Softmax:
    """Class probabilities of a classifier."""

    temperature: float = 1.0
    tree: str = ""
    """File of the class tree (see tree.py) as the cfg names it; empty: every class excludes every other."""


@dataclass(frozen=True)
class Cost:
    """A classifier's loss; passes values on."""

    type: str = "sse"


@dataclass(frozen=True)
class Contrastive:
    """A loss on embeddings that track objects; passes values on."""


@dataclass(frozen=True)
class Region:
    """Detection head of YOLOv2, and the scales of its loss. Defaults: yolo-voc.cfg."""

    anchors: tuple[tuple[float, float], ...]
    """(w, h) in cells."""
    classes: int
    softmax: bool = True
    """Classes exclude each other (softmax), or are independent (logistic)."""
    bias_match: bool = True
    """Assign an object to the anchor of best shape IoU, or else to the predicted shape of best IoU."""
    rescore: bool = True
    """Objectness target: the IoU of the predicted box, or else 1."""
    thresh: float = 0.6
    """A predicted box with a higher IoU than this with any object is not background."""
    object_scale: float = 5.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0
    tree: str = ""
    """File of the class tree (see tree.py) as the cfg names it; empty: no tree."""
    map: str = ""
    """File that maps a data set's classes to the tree's, as the cfg names it; empty: none."""

    @property
    def channels(self) -> int:
        """Channels that the map before this layer must have: A * (5 + C)."""
        return len(self.anchors) * (5 + self.classes)


@dataclass(frozen=True)
class Yolo:
    """Detection head of YOLOv3 and v4, and the settings of its loss. Defaults: Darknet's (yolo_layer.c of the fork)."""

    all_anchors: tuple[tuple[float, float], ...]
    """(w, h) in input pixels, of all heads of the network."""
    mask: tuple[int, ...]
    """Which of them this head has."""
    classes: int
    gaussian: bool = False
    """Each coordinate has an uncertainty beside it (Gaussian YOLOv3); for detection only."""
    scale_x_y: float = 1.0
    """Factor by which the offset in a cell is widened around its centre."""
    new_coords: bool = False
    """The convolution before has activation=logistic: sizes are (2v)^2 anchors, and nothing here has a sigmoid."""
    ignore_thresh: float = 0.5
    """A predicted box with a higher IoU than this with any object is not background."""
    truth_thresh: float = 1.0
    """A predicted box with a higher IoU than this with an object is assigned to it."""
    iou_thresh: float = 1.0
    """Assign an object also to other anchors whose shape IoU is above this; 1: to its best anchor only."""
    iou_loss: IouLoss = "mse"
    """Loss of the boxes: squared error of the coordinates, or an IoU."""
    iou_normalizer: float = 0.75
    """Weight of the loss of boxes."""
    obj_normalizer: float = 1.0
    """Weight of the loss of objectness."""
    cls_normalizer: float = 1.0
    """Weight of an object's own class; of effect with counters_per_class only."""
    max_delta: float = math.inf
    """Largest gradient of a coordinate under an IoU loss, and largest weight of a class."""
    objectness_smooth: bool = False
    """Objectness of boxes that overlap an object grows towards their IoU."""
    label_smooth_eps: float = 0.0
    """Targets of classes are this far from 0 and 1, halved. A key of [net]."""
    focal_loss: bool = False
    counters_per_class: tuple[float, ...] = ()
    """Objects of each class in the training data: rare classes get more weight. Empty: all equal."""
    nms_kind: NmsKind = ""
    """How overlapping boxes are suppressed; empty: by their IoU."""
    beta_nms: float = 0.6
    """Exponent of the distance of centres under diounms."""

    @property
    def anchors(self) -> tuple[tuple[float, float], ...]:
        """(w, h) in input pixels of the anchors of this head."""
        return tuple(self.all_anchors[index] for index in self.mask)

    @property
    def channels(self) -> int:
        """Channels that the map before this layer must have: A * (5 + C), or A * (9 + C) with uncertainties."""
        return len(self.mask) * ((9 if self.gaussian else 5) + self.classes)


@dataclass(frozen=True)
class Detection:
    """Detection head of YOLOv1, and the scales of its loss. It has no anchors. Defaults: Darknet's."""

    classes: int
    side: int = 7
    """Cells in each direction."""
    num: int = 1
    """Boxes of a cell."""
    input_size: tuple[int, int] = (0, 0)
    """(width, height) of the network's only input size, pixels."""
    softmax: bool = False
    """Classes of a cell exclude each other; else they are raw numbers."""
    sqrt: bool = False
    """Sizes are predicted as square roots."""
    rescore: bool = False
    """Objectness target: the IoU of the predicted box, or else 1."""
    forced: bool = False
    """The responsible box is the second of a cell for small objects, the first for others."""
    object_scale: float = 1.0
    noobject_scale: float = 1.0
    class_scale: float = 1.0
    coord_scale: float = 1.0

    anchors: ClassVar[tuple[tuple[float, float], ...]] = ()

    @property
    def channels(self) -> int:
        """Numbers that the layer before must have: side^2 * (C + 5 num)."""
        return self.side**2 * (self.classes + 5 * self.num)


Head = Region | Yolo | Detection
"""Layers that define the meaning of the map before them. A network may have several."""
Linked = Route | Shortcut | ScaleChannels | Sam
"""Layers that read the outputs of other layers than the one before them."""
Layer = (
    Conv | Local | Connected | Batchnorm | MaxPool | LocalAvgPool | AvgPool | Linked | Reorg | SpaceToDepth | Upsample
    | Crop | Dropout | Softmax | Cost | Contrastive | Head
)  # fmt: skip


@dataclass(frozen=True)
class PlacedHead:
    """A head in its network."""

    layer: Head
    stride: int
    """Input pixels a cell of its map; of a detection layer 1."""
    index: int = -1
    """Index of the layer in the network."""

    @property
    def anchors_px(self) -> list[tuple[float, float]]:
        """Its anchors (w, h) in input pixels."""
        scale = self.stride if isinstance(self.layer, Region) else 1
        return [(w * scale, h * scale) for w, h in self.layer.anchors]
