"""Large matrix products in fp32, bf16 and int8: the rate that this machine reaches, by which networks are judged.

A convolution is a matrix product, so a network cannot be much faster. The best of several sizes and of two libraries
counts: oneDNN as OpenVINO calls it, and PyTorch. PyTorch has no public product of bytes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from lookonce.inference.backends.torch import computes_bf16

if TYPE_CHECKING:
    import openvino

SIDES = (1024, 1536, 2048)
"""Rows and columns of the matrices."""
UNSIGNED, SIGNED = ((0, 1, 0, 1), 256), ((-1, 1, -1, 1), 255)
"""Ranges before and after rounding, and steps, of what becomes bytes: the input of a layer, and its weights."""


class Product(NamedTuple):
    """One matrix product that can be timed."""

    name: str
    precision: str
    operations: int
    """Multiplications and additions of one run."""
    run: Callable[[], Any]


def products(threads: int) -> Iterator[Product]:
    """Yield the products that this machine can compute. threads: of the CPU, which the caller sets for PyTorch."""
    floats = ("fp32", "bf16") if computes_bf16() else ("fp32",)
    for side in SIDES:
        operations = 2 * side**3
        for precision in floats:
            yield Product(f"PyTorch {side}", precision, operations, _torch(side, precision))
        if importlib.util.find_spec("openvino") is not None:
            for precision in (*floats, "int8"):
                yield Product(f"OpenVINO {side}", precision, operations, _openvino(side, precision, threads))


def _torch(side: int, precision: str) -> Callable[[], object]:
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.rand(side, side).to(kind) for _ in range(2))
    made = torch.empty(side, side, dtype=kind)

    def run() -> object:
        with torch.inference_mode():
            return torch.mm(one, other, out=made)

    return run


def _openvino(side: int, precision: str, threads: int) -> Callable[[], object]:
    from openvino import Model, Tensor, opset13

    draw = np.random.default_rng(0)
    given = opset13.parameter([side, side], np.float32)
    rows: openvino.Node = given
    # Up to half of the range: without VNNI, bytes are multiplied in pairs whose sum saturates at 16 bits.
    columns: openvino.Node = opset13.constant(draw.random((side, side), np.float32) - 0.5)
    if precision == "int8":
        rows, columns = (
            opset13.fake_quantize(matrix, *map(np.float32, ends), steps)
            for matrix, (ends, steps) in ((rows, UNSIGNED), (columns, SIGNED))
        )
    model = Model([opset13.matmul(rows, columns, False, True)], [given], precision)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": str(threads),
    }
    request = _core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(Tensor(draw.random((side, side), np.float32)))

    def run() -> object:
        request.start_async()
        return request.wait()

    return run


def _core() -> openvino.Core:
    from lookonce.inference.backends.openvino import the_core

    return the_core()
