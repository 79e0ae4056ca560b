"""Copies from the host to a device that do not wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device.

    A copy from ordinary memory to a GPU waits until the GPU has done all its work; one from page-locked memory does
    not, so a tensor of the host goes through that. Source: CUDA C++ programming guide, asynchronous execution.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
