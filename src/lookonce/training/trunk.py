"""Both splits through the frozen trunk, once: what the loaders then read in place of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lookonce.data.loader import Pictures, collate
from lookonce.data.warp import draws, warp
from lookonce.network import Network, folded
from lookonce.training.features import DIGEST, CachedPictures, FeatureCache, digest_of, fill, trunk_key
from lookonce.training.module import Training, choose_precision
from lookonce.training.plan import Plan
from lookonce.training.validation import CachedInputs, Inputs


class Trunk:
    """The frozen layers of a module and the cache of their outputs.

    Args:
        module: its network's trunk is frozen; from here on it runs on outputs alone.
        plan: says how pictures are seen.
        place: the folder of all caches.
    """

    def __init__(self, module: Training, plan: Plan, place: Path) -> None:
        self.plan, how = plan, plan.settings
        module.cut = module.network.cut
        self.run = outputs_of(module.network, module.cut, how.features == "bf16")
        frame = (how.size, how.size)
        key = trunk_key(module.network, module.cut, f"{frame} {how.resize} {how.features} {how.pixel_range}")
        with torch.inference_mode():
            shapes = [(int(o.shape[1]), int(o.shape[2]), int(o.shape[3])) for o in self.run(torch.zeros(1, 3, *frame))]
        self.cache = FeatureCache(place / key, shapes, how.features)

    def training(self, pictures: Pictures) -> CachedPictures:
        """Training pictures, every variant, as data.warp shows them to the network."""
        plan, how, dataset = self.plan, self.plan.settings, pictures.canvases.dataset
        about = f"warped {how.augment} seed {plan.seed}" if how.variants else "warped"
        digests = [digest_of(dataset, index, f"{about} {variant} {index}" if how.variants else about)
                   for variant in range(max(1, how.variants)) for index in range(len(dataset))]  # fmt: skip

        def image(place: int) -> Tensor | None:
            variant, index = divmod(place, len(dataset))
            sample = pictures[index]
            if sample is None:
                return None
            drawn = draws(plan.seed, variant, np.array([index]))
            return warp(collate([sample]), (how.size, how.size), how.resize, how.augment, drawn).images[0]

        fill(self.cache, digests, self.run, image, "training pictures")
        return CachedPictures(pictures, self.cache, digests)

    def validation(self, inputs: Inputs) -> CachedInputs:
        """Validation pictures, as detection sees them."""
        grey = bytes(DIGEST)  # a picture that is gone
        digests = [digest_of(inputs.dataset, index, "resized") or grey for index in range(len(inputs))]
        fill(self.cache, digests, self.run, inputs.image, "validation pictures")
        return CachedInputs(inputs, self.cache, digests)


def outputs_of(network: Network, cut: int, fast: bool) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """The layers below the cut. fast: batch norm folded in, bf16 where the CPU computes in it; else as in training."""
    if not fast:
        return lambda images: network.until(images, cut)
    plain = folded(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = choose_precision("cpu")[0] == "bf16-mixed"

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return tuple(plain.until(images, cut))

    return run
