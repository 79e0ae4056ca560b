"""Tests of lookonce.model.heads.iou_deltas."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model.boxes import cxcywh_to_xyxy, iou
from lookonce.model.heads.iou_deltas import iou_deltas


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_deltas_are_darknets(kind):
    golden = np.load(GOLDEN / "dk_yolo4_iou.npz")
    pred, truth = (torch.from_numpy(golden[name]) for name in ("pred", "truth"))
    expected = golden[f"grad_{kind}"]
    np.testing.assert_allclose(iou_deltas(pred, truth, kind).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_iou_deltas_are_the_derivative_of_the_iou_with_twice_that_of_sizes():
    draw = torch.Generator().manual_seed(0)
    truth = torch.rand(50, 4, generator=draw, dtype=torch.float64) * 0.4 + 0.2
    pred = (truth + 0.1 * torch.rand(50, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    iou(cxcywh_to_xyxy(pred), cxcywh_to_xyxy(truth)).sum().backward()
    expected = pred.grad * torch.tensor([1.0, 1, 2, 2])
    torch.testing.assert_close(iou_deltas(pred.detach(), truth, "iou"), expected)
