"""Tests of lookonce.report.explain_loss."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from lookonce.model.heads.region import LOSSES, loss
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.losses import LossOptions, Objects
from lookonce.report.explain_loss import BACKGROUND, IGNORED, OBJECT, loss_maps

REGION = Region(((1.0, 1.5), (3.0, 2.5)), 3)
OBJECTS = Objects(
    torch.tensor([[20.0, 30, 60, 100], [100, 40, 190, 120], [101, 41, 189, 119], [30, 150, 90, 200]]),
    torch.tensor([0, 2, 1, 1]), torch.zeros(4).long(), torch.tensor([False, False, False, True]),
)  # fmt: skip


def raw_map(seed=0):
    return torch.randn(1, REGION.channels, 7, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("region", [
    REGION, replace(REGION, softmax=False, rescore=False), replace(REGION, bias_match=False),
], ids=["softmax", "logistic", "best predicted shape"])  # fmt: skip
def test_the_maps_sum_to_the_terms_of_the_loss(name, region):
    head, raw = PlacedHead(region, 32), raw_map()
    found = loss_maps(raw, head, OBJECTS, LossOptions(name))
    expected = loss(raw, head, OBJECTS, LossOptions(name))
    assert set(found.maps) == set(expected) - {"total", "recall"}
    for term, values in found.maps.items():
        assert float(values.sum()) == pytest.approx(float(expected[term]), rel=1e-5)
        assert (values >= 0).all()
    assert sum(float(values.sum()) for values in found.maps.values()) == pytest.approx(found.terms["total"], rel=1e-5)


def test_a_map_is_computed_cell_by_cell_as_in_a_slow_loop():
    """One predictor after the other, straight from the formulas of region_layer.c."""
    raw, head = raw_map(1), PlacedHead(REGION, 32)
    one = Objects(*(value[:1] for value in OBJECTS[:4]))
    maps = loss_maps(raw, head, one, LossOptions()).maps
    cells = raw.view(2, 8, 7, 7)
    x, y, w, h = 40 / 32, 65 / 32, 40 / 32, 70 / 32  # of the object, cells
    for a, row, col in itertools.product(range(2), range(7), range(7)):
        tx, ty, tw, th, to = cells[a, :5, row, col].tolist()
        objectness = sigmoid(to)
        bw, bh = math.exp(tw) * REGION.anchors[a][0], math.exp(th) * REGION.anchors[a][1]
        bx, by = sigmoid(tx) + col, sigmoid(ty) + row
        wide = max(min(bx + bw / 2, x + w / 2) - max(bx - bw / 2, x - w / 2), 0)
        high = max(min(by + bh / 2, y + h / 2) - max(by - bh / 2, y - h / 2), 0)
        iou = wide * high / (bw * bh + w * h - wide * high)
        at = {name: float(values[a, row, col]) for name, values in maps.items()}
        if (a, row, col) == (0, 2, 1):  # of the object
            scale = 2 - w * h / 49
            assert at["xy"] == pytest.approx(
                scale * ((sigmoid(tx) - 0.25) ** 2 + (sigmoid(ty) - y % 1) ** 2) / 2, rel=1e-4
            )
            assert at["wh"] == pytest.approx(
                scale * ((tw - math.log(w)) ** 2 + (th - math.log(h / 1.5)) ** 2) / 2, rel=1e-4
            )
            assert at["objectness"] == pytest.approx(5 * (objectness - iou) ** 2 / 2, rel=1e-4)
            assert at["background"] == 0
        else:
            assert at["background"] == pytest.approx(objectness**2 / 2 if iou <= 0.6 else 0, rel=1e-4)
            assert at["xy"] == at["wh"] == at["objectness"] == at["class"] == 0


def sigmoid(t):
    return 1 / (1 + math.exp(-t))


def test_roles_are_those_of_the_objects():
    raw = torch.zeros(1, REGION.channels, 7, 7)
    raw.view(2, 8, 7, 7)[1, 2:4, 2, 4] = torch.tensor([90 / 96, 80 / 80]).log()  # cell (2, 4) predicts object 2's box
    roles = loss_maps(raw, PlacedHead(REGION, 32), OBJECTS, LossOptions()).roles
    assert roles.shape == (2, 7, 7)
    assert roles[0, 2, 1] == OBJECT  # 40 x 70 px on the anchor 32 x 48
    assert (roles == OBJECT).sum() == 2  # two of the four share a cell and an anchor, one is difficult
    assert roles[:, 5, 1].tolist().count(IGNORED) >= 1  # the cell of the difficult one
    assert roles[0, 0, 6] == roles[1, 6, 6] == BACKGROUND


def test_an_object_at_several_anchors_has_several_predictors():
    found = loss_maps(raw_map(), PlacedHead(REGION, 32), OBJECTS, LossOptions(match_iou=0.1))
    assert (found.roles == OBJECT).sum() > 2
    assert float(found.maps["class"].sum()) == pytest.approx(found.terms["class"], rel=1e-5)


def test_an_image_without_objects_is_all_background():
    none = Objects(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0).bool())
    found = loss_maps(raw_map(), PlacedHead(REGION, 32), none, LossOptions())
    assert (found.roles == BACKGROUND).all()
    assert found.terms["total"] == pytest.approx(float(found.maps["background"].sum()), rel=1e-5)
