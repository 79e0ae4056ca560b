"""Tests of lookonce.data.augmentation."""

import pytest

from lookonce.data.augmentation import Augmentation
from lookonce.errors import ConfigError


@pytest.mark.parametrize("options, name", [
    ({"aspect": 1.0}, "aspect"), ({"zoom": (0.0, 1.0)}, "zoom"), ({"zoom": (2.0, 1.0)}, "zoom"),
    ({"flip": 1.1}, "flip"),
    ({"hue": 0.6}, "hue"), ({"saturation": 0.9}, "saturation"), ({"exposure": float("inf")}, "exposure"),
    ({"mosaic": -0.1}, "mosaic"), ({"keep": 1.5}, "keep"), ({"flip": "half"}, "flip"), ({"hue": float("nan")}, "hue"),
])  # fmt: skip
def test_values_out_of_range_are_refused_by_name(options, name):
    with pytest.raises(ConfigError, match=rf"augment\.{name}: "):
        Augmentation(**options)


def test_limits_are_allowed():
    assert Augmentation(0.0, (1.0, 1.0), 0.0, 0.0, 1.0, 1.0, 0.0, 0.0) == Augmentation.none()
    Augmentation(mosaic=None, flip=1.0, hue=0.5, keep=1.0)
