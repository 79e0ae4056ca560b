"""Cached outputs of the frozen layers: computed once for each image, kept on disk, and trained on alone.

A cache is a folder with features.bin (one slot an image) and index.bin (one record a slot: digest of the image, CRC of
digest and slot). A record is written after its slot, so an interrupted pass continues where it stopped. One process
writes at a time, under a lock; others read meanwhile, and every read is checked.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from lookonce.console import track
from lookonce.data.augment import InputBatch, augment_batch, sample_parameters
from lookonce.data.dataset import Dataset
from lookonce.data.loader import Sample, TrainingImages, collate
from lookonce.errors import UserError
from lookonce.inference.cache import CacheError, in_use, locked, make_room
from lookonce.model.network import Network, folded
from lookonce.training.config import RunConfig
from lookonce.training.step import Training, choose_precision
from lookonce.training.validation import Inputs

log = logging.getLogger("lookonce")
DIGEST = 16
"""Bytes of an image's digest."""
RECORD = DIGEST + 4
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
BATCH = 8
"""Images that go through the backbone at once."""


def backbone_key(network: Network, split_index: int, about: str) -> str:
    """Return the key of a backbone: a digest of its layers, its numbers and what else its outputs depend on (about)."""
    found = hashlib.blake2b(f"{network.layers[:split_index]} {about}".encode(), digest_size=DIGEST)
    frozen = [c for index, c in network.convolutions.items() if int(index) < split_index]
    for convolution in frozen:
        norm = getattr(convolution, "norm", None)
        found.update(repr(norm.sigma if norm is not None else None).encode())
        for value in convolution.state_dict().values():
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class FeatureCache:
    """Outputs of one backbone, by the digest of what they were computed from.

    Args:
        folder: of this backbone alone.
        shapes: (C, H, W) of each output.
        kind: bf16 or fp32.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, int, int]], kind: str) -> None:
        self.folder, self.shapes, self.type = folder, tuple(shapes), TYPES[kind]
        self.values = sum(int(np.prod(shape)) for shape in shapes)
        self.slot_bytes = self.values * self.type.itemsize
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.index_file = folder / "features.bin", folder / "index.bin"
        for file in (self.file, self.index_file):
            file.touch()
        self.records: list[bytes] = []
        self.slots: dict[bytes, int] = {}
        self.look()

    def look(self) -> None:
        """Take note of what other processes have written."""
        content = self.index_file.read_bytes()
        whole = min(len(content) // RECORD, self.file.stat().st_size // self.slot_bytes)
        self.records = [content[i * RECORD : (i + 1) * RECORD] for i in range(whole)]
        self.slots = {record[:DIGEST]: slot for slot, record in enumerate(self.records)}

    def missing(self, digests: Sequence[bytes]) -> list[int]:
        """Places of the digests that have no slot yet, or a damaged one, which is forgotten."""
        damaged = {digest for digest in {*digests} & self.slots.keys() if self._content(digest) is None}
        for digest in damaged:
            del self.slots[digest]
        if damaged:
            log.warning("%s: %d damaged features are computed again", self.folder, len(damaged))
        return [place for place, digest in enumerate(digests) if digest not in self.slots]

    def make_room(self, count: int) -> None:
        """Raises UserError where the disk cannot take so many slots more: before anything is computed."""
        free, need = shutil.disk_usage(self.folder).free, count * self.slot_bytes
        if need > free * 0.9:
            raise UserError(
                f"{self.folder}: features of {count} images need {need / 1e9:.1f} GB ({self.slot_bytes / 1e6:.2f} MB "
                f"each), and {free / 1e9:.1f} GB are free; use --features bf16, fewer --variants, a smaller --size, "
                "another cache folder (LOOKONCE_CACHE), or none"
            )

    def add(self, digest: bytes, outputs: Sequence[Tensor]) -> None:
        """Write one image's outputs, each (C, H, W), then its record."""
        flat = torch.cat([output.detach().to("cpu", self.type).flatten() for output in outputs])
        content = flat.view(torch.uint8).numpy().tobytes()
        slot = len(self.records)
        with self.file.open("r+b") as file:
            file.seek(slot * self.slot_bytes)
            file.write(content)
        record = digest + zlib.crc32(content, zlib.crc32(digest)).to_bytes(4, "little")
        with self.index_file.open("r+b") as file:
            file.seek(slot * RECORD)
            file.write(record)
        self.records.append(record)
        self.slots[digest] = slot

    def read(self, digest: bytes) -> tuple[Tensor, ...]:
        """One image's outputs. Raises UserError where the slot is not what was written."""
        content = self._content(digest)
        if content is None:
            raise UserError(f"{self.file}: slot {self.slots[digest]} is damaged; start again, and it is computed again")
        flat = torch.from_numpy(content).view(self.type)
        parts = torch.split(flat, [int(np.prod(shape)) for shape in self.shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def _content(self, digest: bytes) -> NDArray[np.uint8] | None:
        """The bytes of a slot; None: they are not what was written for this digest."""
        slot = self.slots[digest]
        content = np.fromfile(self.file, np.uint8, self.slot_bytes, offset=slot * self.slot_bytes)
        written = int.from_bytes(self.records[slot][DIGEST:], "little")
        is_right = zlib.crc32(content.data, zlib.crc32(digest)) == written
        return content if is_right else None


class CachedImages(TorchDataset[Sample | None]):
    """Training images by image + variant * length, their backbone outputs in place of images.

    digests: of every variant of every image, in that order; b"" for one that could not be decoded.
    """

    def __init__(self, images: TrainingImages, cache: FeatureCache, digests: Sequence[bytes]) -> None:
        self.images, self.cache, self.digests = images, cache, digests

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, place: int) -> Sample | None:
        if not self.digests[place]:
            return None
        sample = self.images.labelled(place % len(self.images), np.zeros((0, 0, 3), np.uint8))
        return sample._replace(outputs=self.cache.read(self.digests[place]))


def digest_of(dataset: Dataset, index: int, about: str) -> bytes:
    """Digest of an image's file and of how it is seen; b"" where it cannot be read."""
    try:
        content = dataset.records[index].path.read_bytes()
    except OSError:
        return b""
    return hashlib.blake2b(content + about.encode(), digest_size=DIGEST).digest()


def fill(cache: FeatureCache, digests: list[bytes], backbone: Callable[[Tensor], tuple[Tensor, ...]],
         image: Callable[[int], Tensor | None], label: str) -> None:  # fmt: skip
    """Compute what is missing; digests of images that cannot be decoded become b"".

    Args:
        cache: takes the outputs.
        digests: of the images, by place.
        backbone: [B, 3, H, W] to the outputs, each [B, C, H', W'].
        image: place to [3, H, W], floats 0..1; None: it cannot be decoded.
        label: names the work in the progress bar.
    """
    rest = [place for place in cache.missing(digests) if digests[place]]
    if not rest:
        return
    cache.make_room(len(rest))
    log.info("%s: %d of %d images through the frozen backbone, %.1f GB in %s", label, len(rest), len(digests),
             len(rest) * cache.slot_bytes / 1e9, cache.folder)  # fmt: skip
    for start in track(range(0, len(rest), BATCH), label):
        places, images = [], []
        for place in rest[start : start + BATCH]:
            seen = image(place)
            if seen is None:
                digests[place] = b""
            elif digests[place] not in cache.slots:
                places.append(place)
                images.append(seen)
        if not images:
            continue
        with torch.inference_mode():
            outputs = backbone(torch.stack(images).contiguous(memory_format=torch.channels_last))
        for row, place in enumerate(places):
            if digests[place] not in cache.slots:  # two files of one content
                cache.add(digests[place], [output[row] for output in outputs])


SCHEMA = 1
"""Raised whenever the same image would be seen otherwise: cached features are then computed again."""


class FrozenBackbone:
    """The frozen layers of a module and the cache of their outputs.

    The cache folder keeps them for other runs with this backbone, also for one that trains at the same time: one run
    computes, the other waits and then reads. Where it cannot be written they last as long as the run.

    Args:
        module: its network's backbone is frozen; from here on it runs on outputs alone.
        config: says how images are seen.
    """

    def __init__(self, module: Training, config: RunConfig) -> None:
        self.config, how = config, config.settings
        module.split_index = module.network.split_index
        self.run = outputs_of(module.network, module.split_index, how.features == "bf16")
        input_size = (how.size, how.size)
        half = choose_precision("cpu")[0] == "bf16-mixed"
        means = f"{SCHEMA} {input_size} {how.resize} {how.features} {half} {how.pixel_range}"
        self.key = backbone_key(module.network, module.split_index, means)
        self.what = f"features of the first {module.split_index} layers of {how.network}, {how.size} px, {how.features}"
        with torch.inference_mode():
            shapes = [
                (int(o.shape[1]), int(o.shape[2]), int(o.shape[3])) for o in self.run(torch.zeros(1, 3, *input_size))
            ]
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

    def training(self, images: TrainingImages) -> CachedImages:
        """Training images, every variant, as data.warp shows them to the network."""
        config, how, dataset = self.config, self.config.settings, images.cache.dataset
        about = f"warped {how.augment} seed {config.seed}" if how.variants else "warped"
        digests = [digest_of(dataset, index, f"{about} {variant} {index}" if how.variants else about)
                   for variant in range(max(1, how.variants)) for index in range(len(dataset))]  # fmt: skip

        def image(place: int) -> Tensor | None:
            variant, index = divmod(place, len(dataset))
            sample = images[index]
            if sample is None:
                return None
            drawn = sample_parameters(config.seed, variant, np.array([index]))
            return augment_batch(collate([sample]), (how.size, how.size), how.resize, how.augment, drawn).images[0]

        self._fill(digests, image, "training images")
        return CachedImages(images, self.cache, digests)

    def validation(self, inputs: Inputs) -> CachedInputs:
        """Validation images, as detection sees them."""
        grey = bytes(DIGEST)  # an image that is gone
        digests = [digest_of(inputs.dataset, index, "resized") or grey for index in range(len(inputs))]
        self._fill(digests, inputs.image, "validation images")
        return CachedInputs(inputs, self.cache, digests)

    def _fill(self, digests: list[bytes], image: Callable[[int], Tensor | None], label: str) -> None:
        """Compute what is missing, while no other run writes."""
        if not self.is_shared:
            fill(self.cache, digests, self.run, image, label)
            return
        with locked("features", self.key):
            self.cache.look()
            make_room(len(set(digests) - self.cache.slots.keys()) * self.cache.slot_bytes)
            fill(self.cache, digests, self.run, image, label)


def outputs_of(network: Network, split_index: int, fast: bool) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function that runs the frozen layers. fast: batch norm folded, bf16 where the CPU has it."""
    if not fast:
        return lambda images: network.forward_backbone(images, split_index)
    plain = folded(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = choose_precision("cpu")[0] == "bf16-mixed"

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return tuple(plain.forward_backbone(images, split_index))

    return run


class CachedInputs(TorchDataset[InputBatch]):
    """Inputs with a frozen layers' outputs in their place; digests as in CachedImages."""

    def __init__(self, inputs: Inputs, cache: FeatureCache, digests: Sequence[bytes]) -> None:
        self.inputs, self.cache, self.digests = inputs, cache, digests

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> InputBatch:
        outputs = tuple(output[None] for output in self.cache.read(self.digests[index]))
        return self.inputs.objects(index)._replace(outputs=outputs)
