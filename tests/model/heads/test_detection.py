"""Tests of lookonce.model.heads.detection. Oracle: numbers made by Darknet's C code."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model.darknet.files import load_darknet
from lookonce.model.heads import detection
from lookonce.model.layers import Detection, PlacedHead
from lookonce.model.losses import LossOptions, Objects
from lookonce.model.postprocess import Selection, nms_per_class

CASES = {
    "d1": Detection(4, 3, 2, (64, 48), sqrt=True, rescore=True, noobject_scale=0.5, coord_scale=5),
    "d2_nosqrt_norescore": Detection(4, 3, 2, (64, 48), object_scale=1.5, noobject_scale=0.7, class_scale=0.8,
                                     coord_scale=3),
    "d3_forced": Detection(4, 3, 2, (64, 48), sqrt=True, forced=True, noobject_scale=0.5, coord_scale=5),
    "d4_softmax": Detection(4, 3, 2, (64, 48), softmax=True, sqrt=True, rescore=True, noobject_scale=0.5,
                            coord_scale=5),
}  # fmt: skip


def labelled(truth):
    """Darknet's truths [B, 9, 9] (is_object, one-hot class, x and y in the cell, w, h) as the objects of a batch."""
    image, cell = np.nonzero(truth[..., 0])
    rows = truth[image, cell]
    x, y = (rows[:, 5] + cell % 3) / 3 * 64, (rows[:, 6] + cell // 3) / 3 * 48
    w, h = rows[:, 7] * 64, rows[:, 8] * 48
    boxes = torch.from_numpy(np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1))
    labels, image = torch.from_numpy(rows[:, 1:5].argmax(1)), torch.from_numpy(image)
    return Objects(boxes, labels, image, torch.zeros(len(image), dtype=torch.bool))


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_minus_darknets_delta(case):
    golden = np.load(GOLDEN / "dk_v1_train.npz")
    raw = torch.from_numpy(golden["raw"]).requires_grad_()
    found = detection.loss(raw[..., None, None], PlacedHead(CASES[case], 1), labelled(golden["truth"]), LossOptions())
    (found["total"] * len(raw)).backward()
    np.testing.assert_allclose(-raw.grad.numpy(), golden[f"{case}_delta"], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_boxes_and_scores_are_darknets():
    golden = np.load(GOLDEN / "dk_v1_64x48.npz")
    network = load_darknet(GOLDEN / "dk_v1_64x48.cfg", GOLDEN / "dk_v1_64x48.weights")
    raw = network(torch.from_numpy(golden["input"])[None])[0]
    np.testing.assert_allclose(
        raw.flatten(), golden["detection_raw"], atol=1e-5 * np.abs(golden["detection_raw"]).max()
    )
    found = detection.decode(raw, network.heads[0])
    cx, cy, w, h = golden["dets_pre_bbox"].T
    expected = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1) * [64, 48, 64, 48]
    np.testing.assert_allclose(found.boxes[0], expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(found.objectness[0], golden["dets_pre_obj"], atol=1e-6)
    scores = (found.objectness[..., None] * found.class_prob)[0]
    prob = torch.where(scores > float(golden["thresh"]), scores, 0)
    np.testing.assert_allclose(prob, golden["dets_pre_prob"], atol=2e-6)
    kept = nms_per_class(found.boxes[0], scores, Selection(float(golden["thresh"]), float(golden["nms"])))
    theirs = golden["final_box_index"].astype(int), golden["final_class"].astype(int)
    assert {*zip(*map(list, kept), strict=True)} == {*zip(*map(list, theirs), strict=True)}
    as_arrays = detection.decode(raw.numpy(), network.heads[0])
    np.testing.assert_array_equal(as_arrays.boxes, found.boxes)


def test_of_two_objects_in_a_cell_the_first_wins_and_ignored_ones_hold_none():
    boxes = torch.tensor([[2.0, 2, 8, 8], [4, 4, 9, 9], [50, 40, 60, 46], [51, 41, 62, 47]])
    ignore = torch.tensor([False, False, True, False])
    objects = Objects(boxes, torch.tensor([3, 1, 0, 2]), torch.zeros(4).long(), ignore)
    found = detection.encode(objects, PlacedHead(CASES["d1"], 1), (1, 1))
    assert found.wins.tolist() == [True, False, False, True]
    assert found.winner.tolist() == [0, 0, 3, 3]
    assert (found.row.tolist(), found.col.tolist()) == ([0, 0, 2, 2], [0, 0, 2, 2])
