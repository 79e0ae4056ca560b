"""Tests of lookonce.inference.backends.torch. Oracle: the network itself, unfolded."""

import numpy as np
import pytest
import torch

from lookonce.errors import UserError
from lookonce.inference.backends.settings import Settings
from lookonce.inference.backends.torch import TorchBackend, computes_bf16
from lookonce.model.model_file import load_model


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("bf16", 0.5)])
def test_the_runtime_gives_the_networks_own_numbers(run, precision, tolerance):
    model = load_model(run)
    x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (expected,) = model.network(x)
    backend = TorchBackend(model, Settings(device="cpu", precision=precision))
    (found,) = backend(x.numpy())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance / 10)
    assert f"{precision}, cpu" in str(backend.info)


def test_a_device_that_is_not_there_is_told(run):
    with pytest.raises(UserError, match="device: 'abacus'"):
        TorchBackend(load_model(run), Settings(device="abacus"))


def test_threads_are_pytorchs_own_number(run):
    before = torch.get_num_threads()
    try:
        TorchBackend(load_model(run), Settings(device="cpu", threads=3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_bf16_is_asked_of_the_processor_that_runs(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert [computes_bf16(device) for device in ("cpu", "cuda", "mps")] == [False, True, False]
