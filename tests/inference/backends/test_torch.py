"""Tests of lookonce.inference.backends.torch. Oracle: the network itself, unfolded."""

import logging

import numpy as np
import pytest
import torch

from lookonce.errors import UserError
from lookonce.inference.backends.settings import Settings
from lookonce.inference.backends.torch import TorchBackend, computes_bf16
from lookonce.inference.detector import Detector
from lookonce.model import postprocess
from lookonce.model.model_file import load_model
from lookonce.model.postprocess import Selection
from lookonce.model.resize import Framed, antialiases, to_bytes, to_input


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


def bytes_of(count):
    draw = np.random.default_rng(5)
    images = [draw.integers(0, 256, (80, 120, 3), np.uint8) for _ in range(count)]
    return images, [to_bytes(image, (96, 96), "letterbox_antialias") for image in images]


def test_bytes_give_the_maps_of_their_floats(run):
    backend = TorchBackend(load_model(run), Settings("torch", device="cpu"))
    images, framed = bytes_of(3)
    floats = [to_input(image, (96, 96), "letterbox_antialias") for image in images]
    for own, other in zip(backend.maps(framed), backend(floats), strict=True):
        np.testing.assert_array_equal(own.numpy(), other)


def test_a_detector_on_a_device_finds_what_one_on_the_cpu_does(run, monkeypatch):
    """The functions of a GPU with tensors of the CPU: bytes, maps that stay tensors, suppression of a batch."""
    plain = Detector(run, "torch", device="cpu", threshold=0.01)
    device = Detector(run, "torch", device="cpu", threshold=0.01)
    device.on_device = True
    monkeypatch.setattr(postprocess, "is_on_gpu", lambda found: not isinstance(found.boxes, np.ndarray))
    images, _ = bytes_of(11)
    assert isinstance(device.prepare(images[0]).pixels, Framed) == antialiases(device.about.resize)
    selections = [device.selection] * 6 + [Selection(0.3)] * 5
    pairs = [(device.detect(images), plain.detect(images)),
             (device.detect_prepared([device.prepare(image) for image in images], selections),
              plain.detect_prepared([plain.prepare(image) for image in images], selections))]  # fmt: skip
    for found, expected in pairs:
        assert [len(one) for one in found] == [len(one) for one in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.labels.tolist() == other.labels.tolist()
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("count", [1, 3, 32])
def test_a_replayed_graph_gives_the_maps_of_the_cpu(run, count):
    _, framed = bytes_of(count)
    own, other = (TorchBackend(load_model(run), Settings("torch", device, "fp32")) for device in ("cuda", "cpu"))
    for _ in range(2):
        for raw, expected in zip(own(framed), other(framed), strict=True):
            np.testing.assert_allclose(raw, expected, atol=1e-3, rtol=1e-3)
