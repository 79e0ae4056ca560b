"""The feature cache: outputs of a frozen backbone, computed once per image and kept on disk for training.

A cache is a folder with features.bin (one slot per image) and index.bin (one record per slot: digest of the image, CRC
of digest and slot). A record is written after its slot, so an interrupted pass continues where it stopped. One process
writes at a time, under a lock; others may read, and every read is verified.
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
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from lookonce.console import track
from lookonce.data.augment import InputBatch, augment_batch, sample_parameters
from lookonce.data.dataset import Dataset
from lookonce.data.loader import NO_PIXELS, Sample, TrainingImages, collate
from lookonce.data.tars import read_bytes
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
"""Bytes of a record: digest and CRC."""
SCHEMA = 1
"""Raise it whenever the preparation of images changes: cached features are then computed again."""
Shape = tuple[int, int, int]
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
BATCH = 8
"""Images that go through the backbone at once."""


def backbone_key(network: Network, split_index: int, about: str) -> str:
    """Return the key of a backbone: of its layers, its weights and what else affects its outputs (about)."""
    found = hashlib.blake2b(f"{network.layers[:split_index]} {about}".encode(), digest_size=DIGEST)
    frozen = [c for index, c in network.convolutions.items() if int(index) < split_index]
    for convolution in frozen:
        norm = getattr(convolution, "norm", None)
        found.update(repr(norm.sigma if norm is not None else None).encode())
        for value in convolution.state_dict().values():
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


class FeatureCache:
    """Outputs of one backbone, by the digest of their image.

    Args:
        folder: for this backbone only.
        shapes: (C, H, W) of each output.
        kind: bf16 or fp32.
    """

    def __init__(self, folder: Path, shapes: Sequence[Shape], kind: str) -> None:
        self.folder, self.shapes, self.type = folder, tuple(shapes), TYPES[kind]
        self.values = sum(int(np.prod(shape)) for shape in shapes)
        self.slot_bytes = self.values * self.type.itemsize
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.index_file = folder / "features.bin", folder / "index.bin"
        for file in (self.file, self.index_file):
            file.touch()
        self.records: list[bytes] = []
        self.slots: dict[bytes, int] = {}
        self.read_index()

    def read_index(self) -> None:
        """Read the index, to which other processes may have added."""
        content = self.index_file.read_bytes()
        count = min(len(content) // RECORD, self.file.stat().st_size // self.slot_bytes)
        self.records = [content[i * RECORD : (i + 1) * RECORD] for i in range(count)]
        self.slots = {record[:DIGEST]: slot for slot, record in enumerate(self.records)}

    def missing(self, digests: Sequence[bytes]) -> list[int]:
        """Return the positions of digests without a slot, or with a damaged one, which is dropped."""
        damaged = {digest for digest in {*digests} & self.slots.keys() if self._content(digest) is None}
        for digest in damaged:
            del self.slots[digest]
        if damaged:
            log.warning("%s: %d damaged features are computed again", self.folder, len(damaged))
        return [place for place, digest in enumerate(digests) if digest not in self.slots]

    def check_disk(self, count: int) -> None:
        """Raise UserError if the disk cannot hold this many more slots."""
        free, need = shutil.disk_usage(self.folder).free, count * self.slot_bytes
        if need > free * 0.9:
            raise UserError(
                f"{self.folder}: features of {count} images need {need / 1e9:.1f} GB ({self.slot_bytes / 1e6:.2f} MB "
                f"each), and {free / 1e9:.1f} GB are free; use --features bf16, fewer --variants, a smaller --size, "
                "another cache folder (LOOKONCE_CACHE), or none"
            )

    def add(self, digest: bytes, outputs: Sequence[Tensor]) -> None:
        """Write the outputs of an image, each (C, H, W), then its record."""
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
        """Return the outputs of an image. Raises UserError if the slot is damaged."""
        content = self._content(digest)
        if content is None:
            raise UserError(f"{self.file}: slot {self.slots[digest]} is damaged; start again to compute it again")
        flat = torch.from_numpy(content).view(self.type)
        parts = torch.split(flat, [int(np.prod(shape)) for shape in self.shapes])
        return tuple(part.view(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def _content(self, digest: bytes) -> NDArray[np.uint8] | None:
        """Return the bytes of a slot; None if they are damaged."""
        slot = self.slots[digest]
        content = np.fromfile(self.file, np.uint8, self.slot_bytes, offset=slot * self.slot_bytes)
        expected = int.from_bytes(self.records[slot][DIGEST:], "little")
        return content if zlib.crc32(content.data, zlib.crc32(digest)) == expected else None


class CachedImages(TorchDataset[Sample | None]):
    """Training images, at index image + variant * length, with backbone outputs instead of pixels.

    digests: by the same index; b"" for an image that could not be decoded.
    """

    def __init__(self, images: TrainingImages, cache: FeatureCache, digests: Sequence[bytes]) -> None:
        self.images, self.cache, self.digests = images, cache, digests

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, place: int) -> Sample | None:
        if not self.digests[place]:
            return None
        sample = self.images.labelled(place % len(self.images), NO_PIXELS)
        return sample._replace(outputs=self.cache.read(self.digests[place]))


def digest_of(dataset: Dataset, index: int, about: str) -> bytes:
    """Return a digest of an image file and its preparation (about); b"" if it cannot be read."""
    record = dataset.records[index]
    try:
        content = read_bytes(record.path)
    except OSError:
        return b""
    if record.corner is not None:
        about += f" tile {record.corner} {record.size}"
    return hashlib.blake2b(content + about.encode(), digest_size=DIGEST).digest()


def fill(cache: FeatureCache, digests: list[bytes], backbone: Callable[[Tensor], tuple[Tensor, ...]],
         image: Callable[[int], Tensor | None], label: str) -> None:  # fmt: skip
    """Compute the missing features; digests of images that cannot be decoded become b"".

    Args:
        cache: where the outputs are added.
        digests: of the images, by place.
        backbone: [B, 3, H, W] to the outputs, each [B, C, H', W'].
        image: place to [3, H, W], floats 0..1; None: it cannot be decoded.
        label: of the progress bar and the log.
    """
    rest = [place for place in cache.missing(digests) if digests[place]]
    if not rest:
        return
    cache.check_disk(len(rest))
    log.info("%s: %d of %d images through the frozen backbone, %.1f GB in %s", label, len(rest), len(digests),
             len(rest) * cache.slot_bytes / 1e9, cache.folder)  # fmt: skip
    for start in track(range(0, len(rest), BATCH), label):
        places, images = [], []
        for place in rest[start : start + BATCH]:
            pixels = image(place)
            if pixels is None:
                digests[place] = b""
            elif digests[place] not in cache.slots:
                places.append(place)
                images.append(pixels)
        if not images:
            continue
        with torch.inference_mode():
            outputs = backbone(torch.stack(images).contiguous(memory_format=torch.channels_last))
        for row, place in enumerate(places):
            if digests[place] not in cache.slots:  # two files may have the same content
                cache.add(digests[place], [output[row] for output in outputs])


class FrozenBackbone:
    """The frozen backbone of a module and the cache of its outputs.

    Runs with the same backbone share the cache, also at the same time: one computes, the others wait and then read. If
    the cache folder cannot be written, the outputs are kept for this run only.

    Args:
        module: with a frozen backbone; from now on it runs on cached outputs only.
        config: of the run.
    """

    def __init__(self, module: Training, config: RunConfig) -> None:
        self.config, how = config, config.settings
        module.split_index = module.network.split_index
        self.run = outputs_of(module.network, module.split_index, how.features == "bf16")
        self.input_size = (how.size, how.size)
        half = choose_precision("cpu")[0] == "bf16-mixed"
        about = f"{SCHEMA} {self.input_size} {how.resize} {how.features} {half} {how.pixel_range}"
        self.key = backbone_key(module.network, module.split_index, about)
        self.what = f"features of the first {module.split_index} layers of {how.network}, {how.size} px, {how.features}"
        with torch.inference_mode():
            shapes = [cast(Shape, tuple(output.shape[1:])) for output in self.run(torch.zeros(1, 3, *self.input_size))]
        self._held = ExitStack()
        self.cache = FeatureCache(self._folder(), shapes, how.features)

    def close(self) -> None:
        """Release the cache: others may now remove it."""
        self._held.close()

    def _folder(self) -> Path:
        """Return the folder of the outputs: in the cache folder or, if that cannot be written, a temporary one."""
        try:
            with locked("features", self.key) as entry:
                if not entry.is_whole():
                    entry.empty()
                    entry.finish(self.what)
                self._held.enter_context(in_use(entry))
            self.is_shared = True
            return entry.folder
        except CacheError as error:
            log.info("%s, so features are kept for this run only", error)
            self.is_shared = False
            return Path(self._held.enter_context(TemporaryDirectory(prefix="lookonce-")))

    def training(self, images: TrainingImages) -> CachedImages:
        """Return the training images, every variant, augmented as in training."""
        config, how, dataset = self.config, self.config.settings, images.cache.dataset
        about = f"warped {how.augment} seed {config.seed}" if how.variants else "warped"
        digests = [digest_of(dataset, index, f"{about} {variant} {index}" if how.variants else about)
                   for variant in range(max(1, how.variants)) for index in range(len(dataset))]  # fmt: skip

        def image(place: int) -> Tensor | None:
            variant, index = divmod(place, len(dataset))
            sample = images[index]
            if sample is None:
                return None
            parameters = sample_parameters(config.seed, variant, np.array([index]))
            return augment_batch(collate([sample]), self.input_size, how.resize, how.augment, parameters).images[0]

        self._fill(digests, image, "training images")
        return CachedImages(images, self.cache, digests)

    def validation(self, inputs: Inputs) -> CachedInputs:
        """Return the validation images, prepared as in detection."""
        grey = bytes(DIGEST)  # a missing image
        digests = [digest_of(inputs.dataset, index, "resized") or grey for index in range(len(inputs))]
        self._fill(digests, inputs.image, "validation images")
        return CachedInputs(inputs, self.cache, digests)

    def _fill(self, digests: list[bytes], image: Callable[[int], Tensor | None], label: str) -> None:
        """Compute the missing features while no other run writes."""
        if not self.is_shared:
            fill(self.cache, digests, self.run, image, label)
            return
        with locked("features", self.key):
            self.cache.read_index()
            make_room(len(set(digests) - self.cache.slots.keys()) * self.cache.slot_bytes)
            fill(self.cache, digests, self.run, image, label)


def outputs_of(network: Network, split_index: int, fast: bool) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the backbone as a function. fast: batch norm folded, bf16 where that is faster; else as in training."""
    if not fast:
        return lambda images: network.forward_backbone(images, split_index)
    fused = folded(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = choose_precision("cpu")[0] == "bf16-mixed"

    def run(images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return tuple(fused.forward_backbone(images, split_index))

    return run


class CachedInputs(TorchDataset[InputBatch]):
    """Validation inputs with backbone outputs instead of pixels."""

    def __init__(self, inputs: Inputs, cache: FeatureCache, digests: Sequence[bytes]) -> None:
        self.inputs, self.cache, self.digests = inputs, cache, digests

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> InputBatch:
        outputs = tuple(output[None] for output in self.cache.read(self.digests[index]))
        return self.inputs.objects(index)._replace(outputs=outputs)
