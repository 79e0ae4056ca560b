"""Mirrors src/lookonce/runtimes/torch.py."""

import torch

from lookonce.model_file import load_model
from lookonce.runtimes.torch import TorchRuntime


def test_the_runtime_gives_the_networks_own_numbers(run):
    model = load_model(run)
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.network(x)
    torch.testing.assert_close(TorchRuntime(model, "cpu")(x), expected, atol=1e-4, rtol=1e-4)
