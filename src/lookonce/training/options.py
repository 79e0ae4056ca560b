"""The settings of training as keyword options: their types, and what they mean.

`train(data, **options: Unpack[TrainOptions])` shows them to type checkers, IDEs and the command line. An option that is
not given, or None, takes the recipe's value, which stands in brackets; tests hold both equal to `recipes`.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from lookonce.model.resize import ResizeMode

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["constant", "steps", "cosine", "one_cycle"]
LossName = Literal["region", "region_ciou", "keras_yolo2"]
Features = Literal["none", "bf16", "fp32"]
Difficult = Literal["ignore", "train", "drop"]


class AugmentOptions(TypedDict, total=False):
    """How much training images are changed. Options that are not given take the recipe's values."""

    aspect: float
    """Stretch width and height by up to this fraction each (Darknet's jitter)."""
    zoom: tuple[float, float]
    """Smallest and largest scale, relative to the size that fits the input; sampled on a log scale."""
    flip: float
    """Fraction of images mirrored left to right."""
    hue: float
    """Largest hue shift, as a fraction of the full circle."""
    saturation: float
    """Largest factor on saturation; the smallest is its inverse."""
    exposure: float
    """Largest factor on brightness; the smallest is its inverse."""
    mosaic: float | None
    """Fraction of batches made of mosaics (four images in one); none: all where objects are small, else no batch."""
    keep: float
    """Ignore an object of which less than this fraction stays in view."""


class TrainOptions(TypedDict, total=False):
    """The settings of training. Options that are not given take the recipe's values."""

    network: str
    """A built-in network (yolov2_tiny, yolov2, ...) or a Darknet .cfg. [quick: yolov2_tiny, paper: yolov2]"""
    size: int
    """Side of the square input, in pixels; a multiple of 32. [416]"""
    multi_scale: tuple[int, ...]
    """Input sides to train at, one chosen every 10 steps. [quick: none, paper: 320..608]"""
    resize: ResizeMode
    """How an image becomes the square input: letterbox keeps the aspect ratio, stretch does not. Use letterbox (without
    _antialias) for a model that Darknet's own programs will run. [letterbox_antialias]"""
    pixel_range: tuple[float, float] | None
    """For images of more than 8 bits: the values that become black and white; none: measured on the training images.
    [none]"""
    anchors: int
    """Number of anchors to cluster on the training boxes; 0: those of yolov2-voc.cfg or of the .cfg.
    [quick: 5, paper: 0]"""
    loss: LossName
    """Loss: region (Darknet's), region_ciou (region plus 1 - CIoU) or keras_yolo2 (the blog's).
    [quick: region_ciou, paper: region]"""
    match_iou: float
    """Also assign an object to other anchors whose shape IoU with it is above this; 1: only to the best anchor, as
    Darknet does. [quick: 0.5, paper: 1.0]"""
    objectness_prior: float
    """Objectness that the untrained network predicts. [quick: 0.01, paper: 0.5]"""
    steps: int | None
    """Stop after exactly this many optimizer steps; none: stop after --epochs. [none]"""
    epochs: int | None
    """Passes over the training images; none: about 6000 steps, 20 to 300 epochs. [quick: none, paper: 160]"""
    batch_size: int
    """Images per optimizer step; the default shrinks for sets that would give fewer than 8 steps an epoch.
    [quick: 4, paper: 64]"""
    optimizer: Optimizer
    """Optimizer. [quick: adamw, paper: sgd]"""
    learning_rate: float
    """Peak learning rate. [quick: 0.002, paper: 0.001]"""
    momentum: float
    """Momentum of SGD and RMSprop; first beta of Adam and AdamW. [0.9]"""
    weight_decay: float
    """Weight decay, applied to convolution weights only. [quick: 0.01, paper: 0.0005]"""
    schedule: Schedule
    """Learning-rate schedule. [quick: one_cycle, paper: steps]"""
    burn_in: int
    """Learning-rate warm-up of the schedules constant, steps and cosine, in optimizer steps (Darknet's burn_in).
    [quick: 100, paper: 1000]"""
    milestones: tuple[float, ...]
    """Schedule steps: fractions of the run after which the learning rate drops to a tenth. [0.375..0.5625]"""
    ema: float
    """Decay of the moving average of the weights; 0: off. [quick: 0.998, paper: 0.0]"""
    gradient_clip: float
    """Largest gradient norm; 0: no limit. [quick: 10.0, paper: 0.0]"""
    prior_loss_images: int
    """Train every predictor towards its anchor during the first images (Darknet's first 12,800). No best model is
    chosen among them. [quick: 0, paper: 12800]"""
    freeze: int | str
    """Freeze layers: none, features (the 18 convolutions of Darknet-19), all_but_last, or a number of convolutions.
    [none]"""
    features: Features
    """Cache the outputs of the frozen layers on disk, in this precision, and train on them. Turns augmentation off
    unless --variants is given. [none]"""
    variants: int
    """With --features: cache this many augmented variants of each image; an epoch uses one. [0]"""
    difficult: Difficult
    """Objects marked difficult: ignore them, train on them like others, or drop them (they become background).
    [ignore]"""
    patience: int
    """Stop after this many validations without a gain of --min-delta; 0: never. [0]"""
    min_delta: float
    """Smallest gain in mAP that counts for --patience. [0.001]"""
    augment: AugmentOptions
    """How much training images are changed. [by recipe]"""
