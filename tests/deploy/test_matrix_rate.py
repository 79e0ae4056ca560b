"""Tests of lookonce.deploy.matrix_rate. Oracle: numpy's product. No test depends on how fast anything is."""

import importlib.util

import numpy as np
import openvino
import pytest
import torch

from lookonce.deploy import matrix_rate
from lookonce.deploy.matrix_rate import products


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(matrix_rate, "SIDES", (48, 64))


def test_every_size_runs_in_both_libraries_and_in_each_precision_of_the_machine(small, monkeypatch):
    for native, kinds in ((False, {"fp32", "int8"}), (True, {"fp32", "bf16", "int8"})):
        monkeypatch.setattr(matrix_rate, "computes_bf16", lambda native=native: native)
        found = list(products(1))
        assert {product.precision for product in found} == kinds
        assert {product.name for product in found} == {
            f"{name} {n}" for name in ("PyTorch", "OpenVINO") for n in (48, 64)
        }
        assert {product.operations for product in found} == {2 * 48**3, 2 * 64**3}
        assert not any(product.precision == "int8" for product in found if "PyTorch" in product.name)
    for product in found:
        product.run()


def test_without_openvino_pytorch_is_measured(small, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert {product.name for product in products(1)} == {"PyTorch 48", "PyTorch 64"}


def test_what_is_timed_is_the_product(monkeypatch):
    made = []
    real = torch.mm

    def mm(one, other, out):
        real(one, other, out=out)
        made.append(np.abs(one.numpy() @ other.numpy() - out.numpy()).max())

    monkeypatch.setattr(torch, "mm", mm)
    matrix_rate._torch(32, "fp32")()
    assert made[0] < 1e-4


@pytest.mark.parametrize("precision, close", [("fp32", 1e-4), ("int8", 0.1)])
def test_openvino_multiplies_bytes_where_int8_is_measured(precision, close, monkeypatch):
    compiled = []
    core = matrix_rate._core()

    class Kept:
        def compile_model(self, model, *given):
            compiled.append(core.compile_model(model, *given))
            return compiled[-1]

    monkeypatch.setattr(matrix_rate, "_core", Kept)
    matrix_rate._openvino(64, precision, 1)()
    kinds = {op.get_rt_info()["runtimePrecision"].astype(str) for op in compiled[0].get_runtime_model().get_ops()
             if op.get_rt_info()["layerType"].astype(str) in ("FullyConnected", "MatMul")}  # fmt: skip
    assert kinds == ({"u8"} if precision == "int8" else {"f32"})
    draw = np.random.default_rng(0)
    columns, rows = draw.random((64, 64), np.float32) - 0.5, draw.random((64, 64), np.float32)
    found = compiled[0]([openvino.Tensor(rows)])[0]
    np.testing.assert_allclose(found, rows @ columns.T, atol=close)
