"""How strongly training images are augmented: settings alone, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lookonce.choices import check_types
from lookonce.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """How strongly training images are augmented. Augmentation.none() leaves them as they are."""

    aspect: float = 0.2
    """Largest relative stretch of width and of height, as Darknet's jitter."""
    zoom: tuple[float, float] = (0.7, 1.4)
    """Smallest and largest scale, relative to the size that fits the input; sampled on a log scale."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    hue: float = 0.02
    """Largest hue shift, as a fraction of the full circle."""
    saturation: float = 1.3
    """Largest saturation factor; the smallest is its inverse."""
    exposure: float = 1.3
    """Largest brightness factor; the smallest is its inverse."""
    mosaic: float | None = None
    """Probability that the inputs of a batch are mosaics of four images; none: 1 if objects are small, 0 if a mosaic
    would cut most of them."""
    keep: float = 0.25
    """An object with less than this ratio of its area in view is ignored: neither ground truth nor background."""

    @staticmethod
    def none() -> Augmentation:
        """Return no augmentation: the image as detection sees it."""
        return Augmentation(0.0, (1.0, 1.0), 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        check_types(self, "augment.")
        low, high = self.zoom
        constraints = {
            "aspect": 0 <= self.aspect < 1,
            "zoom": 0 < low <= high < math.inf,
            "flip": 0 <= self.flip <= 1,
            "hue": 0 <= self.hue <= 0.5,
            "saturation": 1 <= self.saturation < math.inf,
            "exposure": 1 <= self.exposure < math.inf,
            "mosaic": self.mosaic is None or 0 <= self.mosaic <= 1,
            "keep": 0 <= self.keep <= 1,
        }
        for name, holds in constraints.items():
            if not holds:
                raise ConfigError(f"augment.{name}: {getattr(self, name)!r}; see its description for what is allowed")
