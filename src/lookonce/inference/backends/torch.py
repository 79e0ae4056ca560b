"""PyTorch as a backend: batch norm folded, channels last."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookonce.errors import ConfigError, UserError
from lookonce.inference.backends.settings import BackendInfo, Settings, follow_forks
from lookonce.model.model_file import Model
from lookonce.model.network import folded


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
        follow_forks(self)

    def forked(self) -> None:
        """Use one thread: those of OpenMP stay in the parent."""
        self._is_inherited = True
        torch.set_num_threads(1)

    def __call__(self, images: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """Return the network's raw maps for a batch of input images. Raises UserError on a GPU in a forked process."""
        if self._is_inherited and self.device.type == "cuda":
            raise UserError(
                "a GPU cannot be used in a forked process; start processes with spawn, or make the Detector in each"
            )
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
