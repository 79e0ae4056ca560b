"""Both splits through the frozen trunk, once: what the loaders then read in place of pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from lookonce.cache import CacheError, in_use, locked, make_room
from lookonce.data.loader import Pictures, collate
from lookonce.data.warp import draws, warp
from lookonce.network import Network, folded
from lookonce.training.features import DIGEST, CachedPictures, FeatureCache, digest_of, fill, trunk_key
from lookonce.training.module import Training, choose_precision
from lookonce.training.plan import Plan
from lookonce.training.validation import CachedInputs, Inputs

log = logging.getLogger("lookonce")

SCHEMA = 1
"""Raised whenever the same image would be seen otherwise: kept features are then computed anew."""


class Trunk:
    """The frozen layers of a module and the cache of their outputs.

    The cache folder keeps them for other runs with this trunk, also for one that trains at the same time: one run
    computes, the other waits and then reads. Where it cannot be written they last as long as the run.

    Args:
        module: its network's trunk is frozen; from here on it runs on outputs alone.
        plan: says how images are seen.
    """

    def __init__(self, module: Training, plan: Plan) -> None:
        self.plan, how = plan, plan.settings
        module.cut = module.network.cut
        self.run = outputs_of(module.network, module.cut, how.features == "bf16")
        frame = (how.size, how.size)
        half = choose_precision("cpu")[0] == "bf16-mixed"
        means = f"{SCHEMA} {frame} {how.resize} {how.features} {half} {how.pixel_range}"
        self.key = trunk_key(module.network, module.cut, means)
        self.what = f"features of the first {module.cut} layers of {how.network}, {how.size} px, {how.features}"
        with torch.inference_mode():
            shapes = [(int(o.shape[1]), int(o.shape[2]), int(o.shape[3])) for o in self.run(torch.zeros(1, 3, *frame))]
        self._held = ExitStack()
        self.cache = FeatureCache(self._folder(), shapes, how.features)

    def close(self) -> None:
        """The outputs are no longer read: others may remove them."""
        self._held.close()

    def _folder(self) -> Path:
        """Where the outputs lie: in the cache folder; where that cannot be, in one that ends with the run."""
        try:
            with locked("features", self.key) as entry:
                if not entry.is_whole():
                    entry.empty()
                    entry.finish(self.what)
                self._held.enter_context(in_use(entry))
            self.is_shared = True
            return entry.folder
        except CacheError as error:
            log.info("%s, so features are kept for this run alone", error)
            self.is_shared = False
            return Path(self._held.enter_context(TemporaryDirectory(prefix="lookonce-")))

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

        self._fill(digests, image, "training images")
        return CachedPictures(pictures, self.cache, digests)

    def validation(self, inputs: Inputs) -> CachedInputs:
        """Validation pictures, as detection sees them."""
        grey = bytes(DIGEST)  # a picture that is gone
        digests = [digest_of(inputs.dataset, index, "resized") or grey for index in range(len(inputs))]
        self._fill(digests, inputs.image, "validation images")
        return CachedInputs(inputs, self.cache, digests)

    def _fill(self, digests: list[bytes], image: Callable[[int], Tensor | None], told: str) -> None:
        """Compute what is missing, while no other run writes."""
        if not self.is_shared:
            fill(self.cache, digests, self.run, image, told)
            return
        with locked("features", self.key):
            self.cache.look()
            make_room(len(set(digests) - self.cache.slots.keys()) * self.cache.slot_bytes)
            fill(self.cache, digests, self.run, image, told)


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
