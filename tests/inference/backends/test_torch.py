"""Tests of lookonce.inference.backends.torch. Oracle: the network itself, unfolded."""

import logging

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


def test_images_that_do_not_fit_into_memory_together_go_in_parts(run, monkeypatch, caplog):
    backend = TorchBackend(load_model(run), Settings("torch"))
    images = np.random.default_rng(3).random((7, 3, 96, 96), np.float32)
    whole, real, sizes = backend(images), backend._run, []

    def small(part):
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(part)

    monkeypatch.setattr(backend, "_run", small)
    with caplog.at_level(logging.INFO, "lookonce"):
        parts = backend(images)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert "no memory for 7 images; goes on with 3 at once" in caplog.text
    monkeypatch.setattr(backend, "_run", lambda part: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(UserError, match="out of memory with one image of 96 x 96 px"):
        backend(images[:1])
