"""PyTorch as a backend: batch norm folded, channels last; on a GPU replayed graphs and inputs that travel as bytes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from threading import Lock
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookonce.errors import ConfigError, UserError, plural
from lookonce.inference.backends.processor import is_bf16_slow
from lookonce.inference.backends.settings import BackendInfo, Images, Settings, follow_forks
from lookonce.model.model_file import Model
from lookonce.model.network import folded
from lookonce.model.resize import Framed, unframed
from lookonce.model.sizes import Shape, shapes

log = logging.getLogger("lookonce")
BATCH_ON_GPU = 32
"""Images that run together on a GPU, where its memory takes them."""
MEMORY_RATIO = 0.5
"""Part of a GPU's free memory that the maps of a batch may take."""
WARM_UP = 3
"""Runs before a graph is captured: cuDNN chooses its algorithms in them."""


class TorchBackend:
    """Run a model's network: inputs of floats 0..1 to the raw maps, one for each head, float32.

    On a GPU inputs may be bytes, batches are filled up to a power of two, and the network of each such size is captured
    once and then replayed. May be called from several threads at once, and in a forked process on one thread of the
    CPU. Raises ConfigError for a device that is missing.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.about = model.description
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        try:
            self.device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
            self.network = folded(model.network).to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device: {settings.device!r}: {str(error).splitlines()[0]}") from None
        precision = settings.precision_where(gains_from_bf16(self.device.type))
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.network.to(dtype=kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.kind = kind
        if self.device.type == "cuda" and kind == torch.float32:
            torch.backends.cudnn.allow_tf32 = False  # TF32 is another precision than fp32
        self.info = BackendInfo("torch", torch.__version__, precision, str(self.device))
        self.takes_bytes = self.device.type == "cuda"
        """Whether inputs may be Framed: a quarter of the bytes to copy."""
        self.batch: int | None = self._fitting() if self.device.type == "cuda" else None
        """Images that should run together; None: it does not matter."""
        self._captured: dict[tuple[int, bool], Callable[..., tuple[Tensor, ...]]] = {}
        self._lock = Lock()  # of the graphs, each of which has one place for its input and output
        self._is_inherited = False
        self._most: int | None = None  # images at once that fit into the device's memory
        follow_forks(self)

    def forked(self) -> None:
        """Use one thread: those of OpenMP stay in the parent."""
        self._is_inherited = True
        torch.set_num_threads(1)

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """Return the network's raw maps for a batch of input images. Raises as maps."""
        return tuple(raw.cpu().numpy() for raw in self.maps(images))

    def maps(self, images: Images | Sequence[Framed]) -> tuple[Tensor, ...]:
        """Return the raw maps on the device, in parts if its memory is too small. A GPU may still be computing them.

        Raises UserError on a GPU in a forked process, and if the memory is too small for one image.
        """
        if self._is_inherited and self.device.type == "cuda":
            raise UserError(
                "a GPU cannot be used in a forked process; start processes with spawn, or make the Detector in each"
            )
        start, parts = 0, []
        while start < len(images):
            part = images[start : start + (self._most or len(images))]
            try:
                parts.append(self._run(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    width, height = self.about.input_size
                    raise UserError(f"{self.device}: out of memory with one image of {width} x {height} px; use "
                                    "--device cpu, or end other programs that use it") from None  # fmt: skip
                self._most = len(part) // 2
                log.info("%s: no memory for %d images; goes on with %d at once", self.device, len(part), self._most)
                continue
            start += len(part)
        return tuple(torch.cat(maps) for maps in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]

    def _run(self, images: Images | Sequence[Framed]) -> tuple[Tensor, ...]:
        """Run images that fit into the memory."""
        with torch.inference_mode():
            if self.device.type != "cuda":
                return self._network(*_joined(images, len(images), pinned=False))
            size = 1 << (len(images) - 1).bit_length()
            given = _joined(images, size, pinned=True)
            with self._lock, torch.cuda.device(self.device):
                found = self._captured_for(given)(*given)
            return tuple(raw[: len(images)] for raw in found)

    def _network(self, pixels: Tensor, inside: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the raw maps. pixels: [B, 3, H, W], floats, or bytes with the part inside the border [B, 4]."""
        there = pixels.to(self.device)
        if inside is not None:
            there = unframed(there, inside.to(self.device))
        given = there.to(dtype=self.kind, memory_format=torch.channels_last)
        return tuple(raw.float() for raw in cast(tuple[Tensor, ...], self.network(given)))

    def _captured_for(self, given: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
        """Return the network for inputs of these shapes, captured at their first use."""
        key = len(given[0]), len(given) > 1
        if key not in self._captured:
            log.info("%s: warms up for %s at once", self.device, plural(key[0], "image"))
            there = tuple(each.to(self.device) for each in given)
            try:
                self._captured[key] = Captured(self._network, there)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # a layer that cannot be captured
                log.info("%s: runs without a graph (%s)", self.device, str(error).splitlines()[0][:120])
                self._captured[key] = self._network
        return self._captured[key]

    def _fitting(self) -> int:
        """Return how many images should run together, by the device's free memory."""
        free, _ = torch.cuda.mem_get_info(self.device)
        width, height = self.about.input_size
        maps = shapes(self.about.layers, Shape(self.about.channels, height, width))
        one = self.kind.itemsize * sum(sorted(math.prod(shape) for shape in maps)[-4:])  # of one image
        most = max(1, int(free * MEMORY_RATIO) // one)
        return int(min(BATCH_ON_GPU, 1 << (most.bit_length() - 1)))


class Captured:
    """A function of tensors on a GPU, captured as a CUDA graph: its kernels then start without Python.

    Source: PyTorch's documentation, CUDA graphs.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...]) -> None:
        self.given = given
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                function(*given)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # other threads may use the device
            self.found = function(*given)

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the results for other tensors of the same shapes."""
        for own, new in zip(self.given, given, strict=True):
            own.copy_(new, non_blocking=True)
        self.graph.replay()
        return tuple(each.clone() for each in self.found)  # the next replay overwrites them


def _joined(images: Images | Sequence[Framed], size: int, pinned: bool) -> tuple[Tensor, ...]:
    """Return a batch of `size` inputs on the host: floats [B, 3, H, W], or bytes and the part inside the border [B, 4].

    The inputs after the images are zeros. pinned: in page-locked memory, from which a copy does not wait; PyTorch
    keeps it until the copy has been made.
    """
    if isinstance(images, np.ndarray) and len(images) == size and not pinned:
        return (torch.from_numpy(images),)
    is_framed = isinstance(images[0], Framed)
    pixels = [image.pixels if isinstance(image, Framed) else image for image in images]
    batch = torch.empty((size, *pixels[0].shape), dtype=torch.uint8 if is_framed else torch.float32, pin_memory=pinned)
    np.stack(pixels, out=batch[: len(pixels)].numpy())
    batch[len(pixels) :] = 0
    if not is_framed:
        return (batch,)
    inside = torch.zeros((size, 4), dtype=torch.int32, pin_memory=pinned)
    inside[: len(images)] = torch.tensor([cast(Framed, image).inside for image in images], dtype=torch.int32)
    return batch, inside


def gains_from_bf16(device: str = "cpu") -> bool:
    """Return whether this machine's CPU or GPU computes bfloat16 faster than fp32."""
    return computes_bf16(device) and not (device == "cpu" and is_bf16_slow())


def computes_bf16(device: str = "cpu") -> bool:
    """Return whether this machine's CPU (AVX512-BF16 or AMX) or GPU has instructions for bfloat16."""
    if device != "cpu":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12; before, these probes
    probes = [getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("avx512_bf16", "amx_tile")]
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16")) or any(probes)
