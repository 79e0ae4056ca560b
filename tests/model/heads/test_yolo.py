"""Tests of lookonce.model.heads.yolo. Oracle: numbers made by Darknet's C code."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.errors import ConfigError
from lookonce.model.darknet.cfg import read_cfg
from lookonce.model.darknet.files import load_darknet
from lookonce.model.heads import decode, yolo
from lookonce.model.losses import LossOptions, Objects
from lookonce.model.postprocess import Selection, nms_per_class
from lookonce.model.resize import boxes_to_image
from lookonce.model.sizes import heads_of

CASES = [
    ("yolo3", "y1"), ("yolo3", "y2_truth"), ("yolo4", "m1_mse"), ("yolo4", "m2_ciou"), ("yolo4", "m3_giou"),
    ("yolo4", "m4_diou"), ("yolo4", "m5_iou"), ("yolo4", "m6_new_ciou"), ("yolo4", "m7_new_mse"),
    ("yolo4", "m8_smooth"), ("yolo4", "m9_cpc"), ("yolo4", "m10_focal"),
]  # fmt: skip
FILES = ["dk_yolo3_96x64", "dk_yolo4_tiny_96x64", "dk_yolo4_new_96x64", "dk_yolo4_gaussian_48x32"]


def labelled(truth, size):
    """Darknet's truths [B, T, 5+] x, y, w, h, class in 0..1 as the objects of a batch."""
    rows = [(image, *row[:5]) for image, each in enumerate(truth) for row in each[: (each[:, 0] == 0).argmax()]]
    image, x, y, w, h, label = torch.tensor(rows, dtype=torch.float64).T
    boxes = torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1) * torch.tensor(size).repeat(2)
    return Objects(boxes.float(), label.long(), image.long(), torch.zeros(len(rows), dtype=torch.bool))


@pytest.mark.parametrize("family, case", CASES)
@pytest.mark.parametrize("which", [0, 1])
def test_the_gradient_is_minus_darknets_delta(family, case, which):
    golden = np.load(GOLDEN / f"dk_{family}_train.npz")
    cfg = read_cfg((GOLDEN / f"dk_{family}_train_{case}.cfg").read_text())
    placed = heads_of(cfg.layers)[which]
    name = f"yolo{which}_raw_new" if placed.layer.new_coords else f"yolo{which}_raw"
    raw = torch.from_numpy(golden[name]).requires_grad_()
    objects = labelled(golden["truth"], (cfg.width, cfg.height))
    found = yolo.loss(raw, placed, objects, LossOptions())
    (found["total"] * len(raw)).backward()
    expected = golden[f"{case}_yolo{which}_delta"]
    np.testing.assert_allclose(-raw.grad.numpy(), expected, atol=5e-6, rtol=1e-5)


def placed_at(golden, heads, shapes):
    """The index among our predictions (head, anchor, row, column) of each of Darknet's detections."""
    starts = np.cumsum([0, *(len(head.layer.mask) * h * w for head, (h, w) in zip(heads, shapes, strict=True))])
    head, row, col, anchor = golden["dets_head_row_col_anchor"].astype(int).T
    h, w = np.array(shapes)[head].T
    return starts[head] + (anchor * h + row) * w + col


@torch.no_grad()
@pytest.mark.parametrize("name", FILES)
def test_boxes_and_scores_are_darknets(name):
    golden, cfg = np.load(GOLDEN / f"{name}.npz"), GOLDEN / f"{name}.cfg"
    network = load_darknet(cfg, cfg.with_suffix(".weights"))
    raws = network(torch.from_numpy(golden["input"])[None])
    found = decode(raws, network.heads)
    at = placed_at(golden, network.heads, [raw.shape[2:] for raw in raws])
    letterbox = "yolo3" in name
    cx, cy, w, h = golden["dets_pre_bbox" if letterbox else "dets_pre_bbox_stretch"].T
    theirs = np.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1)
    size, image = (network.origin.cfg.width, network.origin.cfg.height), golden["image_wh"].astype(int)
    ours = boxes_to_image(found.boxes[0, at].numpy(), tuple(image), size, "letterbox" if letterbox else "stretch")
    np.testing.assert_allclose(ours / np.tile(image, 2), theirs, atol=1e-5)
    np.testing.assert_allclose(found.objectness[0, at], golden["dets_pre_obj"], atol=5e-6)
    scores = (found.objectness[..., None] * found.class_prob)[0, at].numpy()
    thresh = float(golden["thresh"])
    np.testing.assert_allclose(np.where(scores > thresh, scores, 0), golden["dets_pre_prob"], atol=5e-6)
    kept = {"dets_nms_prob": None, "dets_nms_prob_stretch": None, "dets_nms_prob_stretch_default": None,
            "dets_nms_prob_stretch_diou": 0.6, "dets_nms_prob_stretch_dioubeta1": 1.0}  # fmt: skip
    for key, exponent in kept.items():
        if key not in golden:
            continue
        selection = Selection(thresh, float(golden["nms"]), distance_exponent=exponent)
        box, label = nms_per_class(theirs, scores, selection)
        assert {*zip(box.tolist(), label.tolist(), strict=True)} == {*zip(*golden[key].nonzero(), strict=True)}, key


def test_an_object_belongs_to_the_head_that_has_its_anchor():
    cfg = read_cfg((GOLDEN / "dk_yolo3_96x64.cfg").read_text())
    coarse, fine = heads_of(cfg.layers)
    boxes = torch.tensor([[10.0, 10, 44, 55], [40, 20, 50, 34], [41, 21, 51, 35]])  # anchors 4, 0, 0
    none = torch.zeros(3, dtype=torch.bool)
    objects = Objects(boxes, torch.tensor([0, 1, 2]), torch.zeros(3).long(), none)
    at_coarse, at_fine = yolo.encode(objects, coarse, (4, 6)), yolo.encode(objects, fine, (8, 12))
    assert at_coarse.wins.tolist() == [True, False, False]
    assert at_fine.wins.tolist() == [False, False, True]  # two in one cell: the last
    assert (at_coarse.anchor[0].item(), at_fine.anchor[2].item()) == (1, 0)


def test_arrays_decode_as_tensors_do_and_without_nan():
    cfg = read_cfg((GOLDEN / "dk_yolo4_tiny_96x64.cfg").read_text())
    placed = heads_of(cfg.layers)[0]
    raw = torch.randn(2, 24, 4, 6, generator=torch.Generator().manual_seed(0))
    arrays, tensors = yolo.decode(raw.numpy(), placed), yolo.decode(raw, placed)
    np.testing.assert_allclose(arrays.boxes, tensors.boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(arrays.class_prob, tensors.class_prob, atol=1e-6)
    assert yolo.decode(torch.full_like(raw, 1e4), placed).boxes.isfinite().all()


def test_a_head_with_uncertainties_and_the_losses_of_region_layers_are_refused():
    gaussian = heads_of(read_cfg((GOLDEN / "dk_yolo4_gaussian_48x32.cfg").read_text()).layers)[0]
    none = torch.zeros(0)
    objects = Objects(torch.zeros(0, 4), none.long(), none.long(), none.bool())
    with pytest.raises(ConfigError, match="Gaussian yolo layers cannot be trained"):
        yolo.loss(torch.zeros(1, 36, 4, 6), gaussian, objects, LossOptions())
    plain = heads_of(read_cfg((GOLDEN / "dk_yolo3_96x64.cfg").read_text()).layers)[0]
    with pytest.raises(ConfigError, match="loss=keras_yolo2: yolo layers cannot be trained; expected loss=region"):
        yolo.loss(torch.zeros(1, 24, 4, 6), plain, objects, LossOptions("keras_yolo2"))
    empty = yolo.loss(torch.zeros(1, 24, 4, 6), plain, objects, LossOptions())
    assert empty["total"] == empty["background"] == 0.5**2 / 2 * 3 * 24
    assert empty["recall"].isnan()


def test_ignored_objects_are_neither_learnt_nor_background():
    plain = heads_of(read_cfg((GOLDEN / "dk_yolo3_96x64.cfg").read_text()).layers)[0]
    one = torch.zeros(1).long()
    raw = torch.zeros(1, 24, 4, 6, requires_grad=True)
    objects = Objects(torch.tensor([[10.0, 10, 44, 55]]), one, one, one.bool() | True)
    yolo.loss(raw, plain, objects, LossOptions())["total"].backward()
    objectness = raw.grad.view(3, 8, 4, 6)[:, 4]
    assert (objectness == 0).nonzero().tolist() == [[1, 2, 1]]
    assert raw.grad.view(3, 8, 4, 6)[:, [0, 1, 2, 3, 5, 6, 7]].abs().sum() == 0
