"""Copies to a device."""

import torch

from lookonce.model.device import to_device


def test_a_tensor_arrives_and_one_that_is_there_is_not_copied():
    given = torch.arange(6)
    assert to_device(given, torch.device("cpu")) is given
    assert to_device(given, torch.device("meta")).device.type == "meta"
