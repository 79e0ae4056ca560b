"""PyTorch as a runtime: batch norm folded, channels last."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lookonce.model_file import Model
from lookonce.network import folded


class TorchRuntime:
    """Runs a model's network: [B, 3, H, W] floats 0..1 to the raw map [B, A*(5+C), H/32, W/32], float32 on the CPU."""

    def __init__(self, model: Model, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network = folded(model.network).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = f"torch {torch.__version__}, fp32, {self.device}"

    def __call__(self, images: Tensor) -> Tensor:
        """The network's raw output for a batch of input pictures."""
        with torch.inference_mode():
            given = images.to(self.device, memory_format=torch.channels_last)
            return cast(Tensor, self.network(given)).float().cpu()
