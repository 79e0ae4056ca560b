"""PyTorch as a backend: batch norm folded, channels last."""

from __future__ import annotations

import logging
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookonce.errors import ConfigError, UserError
from lookonce.inference.backends.settings import BackendInfo, Images, Settings, follow_forks
from lookonce.model.model_file import Model
from lookonce.model.network import folded

log = logging.getLogger("lookonce")


class TorchBackend:
    """Run a model's network: [B, 3, H, W] floats 0..1 to the raw maps, one for each head, float32.

    May be called from several threads at once, and in a forked process on one thread of the CPU.
    Raises ConfigError for a device that is missing.
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
        precision = settings.precision_where(native=computes_bf16(self.device.type))
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.network.to(dtype=kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.kind = kind
        if self.device.type == "cuda" and kind == torch.float32:
            torch.backends.cudnn.allow_tf32 = False  # TF32 is another precision than fp32
        self.info = BackendInfo("torch", torch.__version__, precision, str(self.device))
        self._is_inherited = False
        self._most: int | None = None  # images at once that fit into the device's memory
        follow_forks(self)

    def forked(self) -> None:
        """Use one thread: those of OpenMP stay in the parent."""
        self._is_inherited = True
        torch.set_num_threads(1)

    def __call__(self, images: Images) -> tuple[NDArray[np.float32], ...]:
        """Return the network's raw maps for a batch of input images, in parts if the device's memory is too small.

        Raises UserError on a GPU in a forked process, and if the memory is too small for one image.
        """
        if self._is_inherited and self.device.type == "cuda":
            raise UserError(
                "a GPU cannot be used in a forked process; start processes with spawn, or make the Detector in each"
            )
        images = images if isinstance(images, np.ndarray) else np.stack(images)
        start, parts = 0, []
        while start < len(images):
            part = images[start : start + (self._most or len(images))]
            try:
                parts.append(self._run(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    height, width = images.shape[2:]
                    raise UserError(f"{self.device}: out of memory with one image of {width} x {height} px; use "
                                    "--device cpu, or end other programs that use it") from None  # fmt: skip
                self._most = len(part) // 2
                log.info("%s: no memory for %d images; goes on with %d at once", self.device, len(part), self._most)
                continue
            start += len(part)
        return tuple(np.concatenate(maps) for maps in zip(*parts, strict=True)) if len(parts) > 1 else parts[0]

    def _run(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        with torch.inference_mode():
            given = torch.from_numpy(images).to(self.device, self.kind, memory_format=torch.channels_last)
            raws = cast(tuple[Tensor, ...], self.network(given))
            return tuple(raw.float().cpu().numpy() for raw in raws)


def computes_bf16(device: str = "cpu") -> bool:
    """Return whether this machine's CPU (AVX512-BF16 or AMX) or GPU has instructions for bfloat16."""
    if device != "cpu":
        return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.12; before, these probes
    probes = [getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("avx512_bf16", "amx_tile")]
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16")) or any(probes)
