"""Tests of lookonce.model.losses. Oracles: the blog's loss under TensorFlow, Darknet's own deltas, slow loops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model.heads.region import (
    Targets,
    assign,
    cell_boxes,
    encode,
    keras_yolo2_loss,
    region_ciou_loss,
    region_loss,
    split,
    winners,
)
from lookonce.model.layers import Region
from lookonce.model.losses import LossOptions, best_iou, complete_iou

SEED_CASES = ("a", "b", "c_warmup", "d_empty_image", "d2_all_empty", "f_zero_weight")
TERMS = {"xy": "loss_xy", "wh": "loss_wh", "objectness": "loss_conf", "class": "loss_class", "total": "total"}


def seed_case(name, dtype):
    """(raw, targets, region, scales, golden) of one run of the blog's loss."""
    golden = np.load(GOLDEN / f"seed_loss_{name}.npz")
    pred, truth = (torch.from_numpy(golden[key]).to(dtype) for key in ("y_pred", "y_true"))
    batch, rows, cols, anchors, channels = pred.shape
    raw = pred.permute(0, 3, 4, 1, 2).reshape(batch, anchors * channels, rows, cols)
    image, row, col, anchor = torch.nonzero(truth[..., 4] > 0, as_tuple=True)
    kept = truth[image, row, col, anchor]
    label = kept[:, 5:].argmax(-1)  # the lowest class of a two-hot cell, as the blog's argmax
    all_boxes = torch.from_numpy(golden["true_boxes"]).to(dtype)[:, 0, 0, 0]  # [B, 50, 4]
    lost = [(b, *box) for b in range(batch) for box in all_boxes[b].tolist() if box[2] > 0]
    lost = [
        entry
        for entry in lost
        if not (kept[image == entry[0], :4] - torch.tensor(entry[1:])).abs().sum(-1).lt(1e-5).any()
    ]
    none = torch.zeros(len(lost), dtype=torch.long)
    boxes = torch.cat((torch.tensor([e[1:] for e in lost], dtype=dtype).view(-1, 4), kept[:, :4]))
    image = torch.cat((torch.tensor([e[0] for e in lost], dtype=torch.long), image))
    col, row = torch.cat((boxes[: len(lost), 0].long(), col)), torch.cat((boxes[: len(lost), 1].long(), row))
    size = torch.from_numpy(golden["anchors"]).to(dtype)
    anchor, label = torch.cat((none, anchor)), torch.cat((none, label))
    blank = torch.zeros(len(boxes), dtype=torch.long)
    txy = boxes[:, :2] - torch.stack((col, row), -1)
    t = Targets(
        image, blank, row, col, boxes, txy, boxes[:, 2:], label, blank.bool(), blank, torch.ones_like(txy[:, 0])
    )
    targets = assign(t, anchor, size)
    # objects that lost their cell stay known to the best IoU, and win nothing
    targets = replace(targets, winner=torch.where(torch.arange(len(boxes)) < len(lost), -1, torch.arange(len(boxes))))
    names = ("object_scale", "noobject_scale", "coord_scale", "class_scale")
    scales = {name: float(golden[name.replace("noobject", "no_object")]) for name in names}
    region = Region(tuple(map(tuple, golden["anchors"].tolist())), channels - 5, **scales)
    return raw, targets, region, golden["class_weights"].tolist(), golden


def channels_last(gradient, anchors):
    return gradient.unflatten(1, (anchors, -1)).permute(0, 3, 4, 1, 2)  # [B, H, W, A, 5+C]


@pytest.mark.parametrize("name", SEED_CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_keras_yolo2_loss_is_the_blogs(name, dtype):
    raw, targets, region, weights, golden = seed_case(name, dtype)
    raw.requires_grad_()
    terms = keras_yolo2_loss(raw, targets, region, LossOptions(prior=name == "c_warmup", class_weights=weights))
    exact = dtype == torch.float64
    for mine, theirs in TERMS.items():
        np.testing.assert_allclose(terms[mine].item(), golden[theirs], rtol=1e-9 if exact else 5e-5, atol=1e-12)
    terms["total"].backward()
    found = channels_last(raw.grad, len(region.anchors)).numpy()
    np.testing.assert_allclose(found, golden["grad_total"], rtol=1e-9 if exact else 0, atol=1e-9 if exact else 2e-6)


@pytest.mark.parametrize("name", ["a", "b"])
def test_keras_yolo2_loss_without_the_iou_gradient(name):
    raw, targets, region, weights, golden = seed_case(name, torch.float64)
    raw.requires_grad_()
    keras_yolo2_loss(raw, targets, region, LossOptions(class_weights=weights, iou_gradient=False))["total"].backward()
    expected = golden["grad_total"].copy()
    expected[..., :4] -= golden["grad_conf_xywh"]
    found = channels_last(raw.grad, len(region.anchors)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("prefix, coord", [("steps", 1.0), ("coord5_steps", 5.0)])
def test_the_blogs_warm_up_ignores_its_coord_scale(prefix, coord):
    raw, targets, region, weights, golden = seed_case("c_warmup", torch.float64)
    for step, seen in enumerate(golden["steps_seen"]):
        warm = seen < golden["warm_up_batches"]
        terms = keras_yolo2_loss(
            raw, targets, replace(region, coord_scale=coord), LossOptions(prior=bool(warm), class_weights=weights)
        )
        for mine, theirs in TERMS.items():
            np.testing.assert_allclose(terms[mine].item(), golden[f"{prefix}_{theirs}"][step], rtol=1e-9)


@pytest.mark.parametrize("name", SEED_CASES)
def test_best_iou_and_recall_are_the_blogs(name):
    raw, targets, region, weights, golden = seed_case(name, torch.float64)
    boxes = cell_boxes(split(raw, len(region.anchors))[0], raw.new_tensor(region.anchors))
    found = best_iou(boxes, winners(targets, raw).truth).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, golden["best_ious"], atol=1e-9)
    recall = keras_yolo2_loss(raw, targets, region, LossOptions(class_weights=weights))["recall"]
    if len(targets.image):
        np.testing.assert_allclose(recall.item(), golden["recall"], rtol=1e-6)


def darknet_case(case):
    """(raw, targets, region, golden) of one run of Darknet's region layer in training."""
    golden = np.load(GOLDEN / "dk_region_train.npz")
    opt = {key.removeprefix(f"{case}_opt_"): golden[key].item() for key in golden if key.startswith(f"{case}_opt_")}
    raw, truth = torch.from_numpy(golden[f"{case}_raw"]), torch.from_numpy(golden[f"{case}_truth"])
    anchors = golden[f"{case}_anchors"]
    rows, cols = raw.shape[2:]
    flags = {name: bool(opt.pop(name)) for name in ("softmax", "bias_match", "rescore")}
    names = {"thresh", "object_scale", "noobject_scale", "class_scale", "coord_scale"}
    classes = raw.shape[1] // len(anchors) - 5
    region = Region(tuple(map(tuple, anchors.tolist())), classes, **flags, **{n: opt[n] for n in names})
    real = [(i, row) for i in range(2) for row in truth[i][: (truth[i, :, 0] == 0).nonzero()[0].item()]]
    image = torch.tensor([i for i, _ in real])
    cx, cy, w, h, label = torch.stack([row for _, row in real]).unbind(-1)
    scale = torch.tensor([cols * 32, rows * 32] * 2)
    boxes = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1) * scale
    targets = encode(boxes, label.long(), image, torch.from_numpy(anchors), (rows, cols), 32)
    return raw, targets, region, golden


@pytest.mark.parametrize("case", ["t1_voc", "t2_norescore_nobias", "t3_logistic"])
@pytest.mark.parametrize("seen, warm_up", [(12799, True), (12800, False)])
def test_the_gradient_of_region_loss_is_darknets_delta(case, seen, warm_up):
    raw, targets, region, golden = darknet_case(case)
    raw.requires_grad_()
    region_loss(raw, targets, region, LossOptions(prior=warm_up))["total"].mul(len(raw)).backward()
    np.testing.assert_allclose(-raw.grad.numpy(), golden[f"{case}_rawdelta_seen{seen}"], atol=5e-6)


def slow_lack(raw, targets, region):
    """Sum of weight * (1 - CIoU) over objects that hold a slot, a number at a time, an image on average."""
    found = 0.0
    for n in torch.nonzero(targets.wins).flatten().tolist():
        image, anchor, row, col = (int(t[n]) for t in (targets.image, targets.anchor, targets.row, targets.col))
        tx, ty, tw, th = (float(raw[image, anchor * (5 + region.classes) + k, row, col]) for k in range(4))
        width, height = (a * math.exp(t) for a, t in zip(region.anchors[anchor], (tw, th), strict=True))
        x, y = (place + 1 / (1 + math.exp(-t)) for place, t in ((col, tx), (row, ty)))
        cx, cy, w, h = targets.boxes[n].tolist()
        over = max(0, min(x + width / 2, cx + w / 2) - max(x - width / 2, cx - w / 2))
        over *= max(0, min(y + height / 2, cy + h / 2) - max(y - height / 2, cy - h / 2))
        overlap = over / (width * height + w * h - over)
        wide = max(x + width / 2, cx + w / 2) - min(x - width / 2, cx - w / 2)
        high = max(y + height / 2, cy + h / 2) - min(y - height / 2, cy - h / 2)
        shape = 4 / math.pi**2 * (math.atan(w / h) - math.atan(width / height)) ** 2
        penalty = ((x - cx) ** 2 + (y - cy) ** 2) / (wide**2 + high**2) + shape**2 / (1 - overlap + shape)
        found += float(targets.weight[n]) * (1 - overlap + penalty)
    return found / len(raw)


@pytest.mark.parametrize("case", ["t1_voc", "t3_logistic"])
def test_region_ciou_loss_is_darknets_and_what_boxes_lack(case):
    raw, targets, region, _ = darknet_case(case)
    shared = replace(targets, weight=torch.linspace(0.2, 1, len(targets.image)))
    own, more = region_loss(raw, shared, region), region_ciou_loss(raw, shared, region)
    assert all(torch.equal(more[name], value) for name, value in own.items() if name != "total")
    assert more["ciou"].item() == pytest.approx(slow_lack(raw, shared, region), rel=1e-5)
    torch.testing.assert_close(more["total"], own["total"] + more["ciou"])


def test_what_a_box_lacks_is_known_by_hand_and_moves_it_towards_its_object():
    region = Region(((2.0, 2.0),), 1)
    box, none = torch.tensor([[48.0, 16, 112, 80]]), torch.tensor([0])  # centre at 2.5, 1.5 cells, 2 x 2 cells
    targets = encode(box, none, none, torch.tensor(region.anchors), (4, 5), 32)
    raw = torch.zeros(1, 6, 4, 5, dtype=torch.float64)
    assert region_ciou_loss(raw, targets, region)["ciou"].item() == pytest.approx(0, abs=1e-12)
    raw[0, 2:4, 1, 2] = math.log(2)  # twice as large, on the same centre: IoU 1/4
    raw.requires_grad_()
    lack = region_ciou_loss(raw, targets, region)["ciou"]
    assert lack.item() == pytest.approx(0.75)
    lack.backward()
    assert raw.grad[0, 2:4, 1, 2].tolist() == pytest.approx([0.25, 0.25])  # of 1 - 4 / (w h) at w = h = 4: 4 / (w h)
    assert torch.count_nonzero(raw.grad[:, 4:]) == 0


def test_the_gradient_of_complete_iou_is_what_small_steps_show():
    truth = torch.tensor([[2.0, 3.0, 2.0, 1.0], [0.5, 0.5, 1.0, 1.0]], dtype=torch.float64)
    off = torch.tensor([[2.3, 2.9, 1.7, 0.85], [4.0, 3.0, 0.5, 0.5]], dtype=torch.float64)  # near; apart
    scale = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    moved = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)

    def nearness(moved, scale):  # shapes as the truth's, wherever and however large: alpha is 0
        return complete_iou(torch.cat((off[:, :2] + moved, off[:, 2:] * scale), 1), truth)

    assert torch.autograd.gradcheck(nearness, (moved, scale))
    assert nearness(moved, scale)[1] < 0
    assert complete_iou(truth, truth).tolist() == [1, 1]


SIZES = (0.0, 1e-45, 1e-20, 1.0, 13.0, 1e20, 3e38, math.inf, -1.0)


def test_complete_iou_and_its_gradient_are_finite_whatever_the_boxes():
    centres = ((0.0, 0.0), (5.0, -2.0), (-1e30, 3e38), (math.inf, 0.0))
    every = torch.tensor([(*centre, w, h) for centre in centres for w in SIZES for h in SIZES])
    first, second = (every[n].clone() for n in torch.cartesian_prod(*[torch.arange(len(every))] * 2).T)
    first.requires_grad_()
    found = complete_iou(first, second)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert found.min() >= -2
    assert found.max() <= 1
    found.sum().backward()
    assert first.grad.isfinite().all()
    boxes = torch.tensor([[3.0, 2, 1e-5, 4], [3, 2, 5e9, 7]])
    torch.testing.assert_close(complete_iou(boxes, boxes), torch.ones(2))


@pytest.mark.parametrize("t", [-math.inf, -1e30, -200.0, 200.0, 1e30, math.inf])
def test_what_a_box_lacks_moves_it_finitely_from_any_prediction(t):
    region = Region(((2.0, 2.0), (1e30, 1e-30)), 1)
    box, none = torch.tensor([[48.0, 16, 112, 80]]), torch.tensor([0])
    targets = encode(box, none, none, torch.tensor(region.anchors), (4, 5), 32)
    raw = torch.full((1, 12, 4, 5), t, requires_grad=True)
    lack = region_ciou_loss(raw, targets, region)["ciou"]
    lack.backward()
    assert lack.isfinite()
    assert raw.grad.isfinite().all()


def test_region_loss_terms_add_up_and_are_finite_without_objects():
    region = Region(((1.0, 2.0), (3.0, 3.0)), 4)
    raw = torch.randn(2, 18, 5, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    empty = encode(torch.zeros(0, 4), *[torch.zeros(0).long()] * 2, torch.tensor(region.anchors), (5, 7), 32)
    for loss in (region_loss, region_ciou_loss, keras_yolo2_loss):
        for warm_up in (False, True):
            terms = loss(raw, empty, region, LossOptions(prior=warm_up))
            parts = sum(value for name, value in terms.items() if name not in ("total", "recall"))
            torch.testing.assert_close(parts, terms["total"])
            terms["total"].backward()
            assert raw.grad.isfinite().all()


def test_an_ignored_object_is_neither_sought_nor_background():
    region = Region(((1.0, 1.0), (3.0, 3.0)), 4)
    anchors = torch.tensor(region.anchors)
    box, label, image = torch.tensor([[64.0, 64, 160, 160]]), torch.tensor([1]), torch.tensor([0])
    targets = encode(box, label, image, anchors, (5, 7), 32, torch.tensor([True]))
    for loss in (region_loss, region_ciou_loss, keras_yolo2_loss):
        raw = torch.zeros(1, 18, 5, 7, requires_grad=True)
        terms = loss(raw, targets, region)
        terms["total"].backward()
        cells = raw.grad.view(2, 9, 5, 7)
        assert cells[1, 4, targets.row.item(), targets.col.item()] == 0
        assert cells[0, 4, 0, 0] != 0
        assert terms["class"] == 0


def test_loss_leaves_its_inputs_alone():
    raw, targets, region, _ = darknet_case("t2_norescore_nobias")
    before, anchor = raw.clone(), targets.anchor.clone()
    region_loss(raw, targets, region)
    assert torch.equal(raw, before)
    assert torch.equal(targets.anchor, anchor)


def test_class_weights_scale_the_class_term_of_each_object():
    raw, targets, region, _, _ = seed_case("a", torch.float64)
    weights = torch.linspace(0, 2, region.classes, dtype=torch.float64)
    won = winners(targets, raw)
    plain = region_loss(raw, targets, region)
    logits = raw.view(len(raw), len(region.anchors), -1, *raw.shape[2:])[won.index[0], won.index[1], 5:, won.index[2],
                                                                         won.index[3]]  # fmt: skip
    each = [weights[label] * -row.log_softmax(0)[label] for row, label in zip(logits, won.label.tolist(), strict=True)]
    weighted = region_loss(raw, targets, region, LossOptions(class_weights=tuple(weights.tolist())))
    assert weighted["class"].item() == pytest.approx(region.class_scale * float(sum(each)) / len(raw))
    assert all(weighted[name] == plain[name] for name in ("xy", "wh", "objectness", "background"))


@pytest.mark.parametrize("loss", [region_loss, region_ciou_loss, keras_yolo2_loss])
def test_the_gradient_of_the_iou_moves_boxes_only_where_it_is_on(loss):
    raw, targets, region, _, _ = seed_case("a", torch.float64)
    raw.requires_grad_()

    def objectness_gradient(on):
        [found] = torch.autograd.grad(loss(raw, targets, region, LossOptions(iou_gradient=on))["objectness"], raw)
        return split(found, len(region.anchors))[0].abs().max().item()  # of x, y, w, h

    assert objectness_gradient(False) == 0
    assert objectness_gradient(True) > 0
