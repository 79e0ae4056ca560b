"""Tests of lookonce.model.heads.region."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model.heads import region
from lookonce.model.layers import PlacedHead, Region

ANCHORS = torch.tensor([(1.3221, 1.73145), (3.19275, 4.00944), (9.47112, 4.84053)])


def encode(boxes, labels, ignore=None):
    image = torch.zeros(len(boxes)).long()
    return region.encode(boxes, labels, image, ANCHORS, grid=(13, 13), stride=32, ignore=ignore)


def decode(raw, softmax=True):
    layer = Region(tuple(map(tuple, ANCHORS.tolist())), raw.shape[1] // 3 - 5, softmax=softmax)
    return region.decode(raw, PlacedHead(layer, stride=32))


def test_decode_gives_back_what_encode_was_given():
    boxes = torch.tensor([[10.0, 20, 110, 220], [200, 200, 260, 230], [0, 0, 416, 416]])
    t = encode(boxes, torch.tensor([0, 1, 2]))
    raw = torch.zeros(1, 3 * (5 + 3), 13, 13)
    cells = raw.view(3, 8, 13, 13)
    for channel, value in enumerate((*torch.logit(t.txy).T, *t.twh.T)):
        cells[t.anchor, channel, t.row, t.col] = value
    slot = (t.anchor * 13 + t.row) * 13 + t.col
    torch.testing.assert_close(decode(raw).boxes[0, slot], boxes, atol=1e-3, rtol=0)


@pytest.mark.parametrize("grid", [(13, 13), (10, 19), (7, 5)])
def test_decode_is_the_formula_of_the_paper_cell_by_cell(grid):
    rows, cols = grid
    raw = torch.randn(2, 3 * 7, rows, cols, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = decode(raw)
    for b, a, y, x in [(0, 0, 0, 0), (1, 2, rows - 1, 0), (0, 1, 2, cols - 1), (1, 1, rows - 1, cols - 1)]:
        tx, ty, tw, th, to, *classes = raw[b, a * 7 : a * 7 + 7, y, x].tolist()
        cx, cy = (x + 1 / (1 + np.exp(-tx))) * 32, (y + 1 / (1 + np.exp(-ty))) * 32
        w, h = np.exp(tw) * float(ANCHORS[a, 0]) * 32, np.exp(th) * float(ANCHORS[a, 1]) * 32
        n = (a * rows + y) * cols + x
        expected = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        np.testing.assert_allclose(found.boxes[b, n].numpy(), expected, rtol=1e-6)
        np.testing.assert_allclose(found.objectness[b, n], 1 / (1 + np.exp(-to)), rtol=1e-6)
        shares = np.exp(classes) / np.exp(classes).sum()
        np.testing.assert_allclose(found.class_prob[b, n].numpy(), shares, rtol=1e-6)


def test_logistic_classes_are_judged_alone():
    raw = torch.randn(1, 21, 2, 2, generator=torch.Generator().manual_seed(2))
    found = decode(raw, softmax=False).class_prob
    expected = region.split(raw, 3)[2].sigmoid().flatten(1, 3)
    torch.testing.assert_close(found, expected)


def test_encode_is_the_blogs_on_real_boxes():
    """seed_encode_bccd: 12 images, 416 px, both anchor sets; boxes as the blog truncates them."""
    golden = np.load(GOLDEN / "seed_encode_bccd.npz")
    scaled = golden["scaled_boxes"]
    scaled = scaled[(scaled[:, 3] > scaled[:, 1]) & (scaled[:, 4] > scaled[:, 2])]  # the blog drops these before
    boxes, image, label = (torch.from_numpy(v.astype(np.float64)) for v in (scaled[:, 1:5], scaled[:, 0], scaled[:, 5]))
    for name in ("seed", "bccd5"):
        expected, anchors = golden[f"y_true_{name}"], torch.from_numpy(golden[f"anchors_{name}"])
        t = region.encode(boxes, label.long(), image.long(), anchors, (13, 13), 32)
        mine = np.zeros_like(expected)
        at = tuple(v[t.wins].numpy() for v in (t.image, t.row, t.col, t.anchor))
        mine[(*at, slice(0, 4))] = t.boxes[t.wins].numpy()
        mine[(*at, 4)] = 1
        held = tuple(v.numpy() for v in (t.image, t.row, t.col, t.anchor))
        mine[(*held, 5 + t.label.numpy())] = 1  # the blog adds the class of a loser to the winner's cell
        np.testing.assert_array_equal(mine, expected)


def test_of_two_objects_on_one_anchor_and_cell_the_last_wins():
    boxes = torch.tensor([[100.0, 100, 200, 200], [102, 102, 202, 202]])
    t = encode(boxes, torch.tensor([7, 9]))
    assert t.wins.tolist() == [False, True]
    assert t.winner.tolist() == [1, 1]


def test_the_last_wins_as_a_loop_over_objects_would_find_it():
    g = torch.Generator().manual_seed(5)
    centre, size = torch.rand(200, 2, generator=g) * 416, torch.rand(200, 2, generator=g) * 100 + 1
    boxes = torch.cat((centre - size / 2, centre + size / 2), -1)
    image = torch.randint(3, (200,), generator=g)
    t = region.encode(boxes, torch.zeros(200).long(), image, ANCHORS, (13, 13), 32)
    held = {}
    for n in range(200):
        held[t.image[n].item(), t.anchor[n].item(), t.row[n].item(), t.col[n].item()] = n
    assert set(torch.nonzero(t.wins)[:, 0].tolist()) == set(held.values())
    assert not t.wins.all()


def test_an_ignored_object_holds_no_cell_and_takes_none_away():
    boxes = torch.tensor([[100.0, 100, 200, 200], [102, 102, 202, 202]])
    t = encode(boxes, torch.tensor([7, 9]), ignore=torch.tensor([False, True]))
    assert t.wins.tolist() == [True, False]


def test_a_centre_on_the_far_edge_belongs_to_the_last_cell():
    t = encode(torch.tensor([[406.0, 406, 426, 426]]), torch.tensor([0]))
    assert (t.row.item(), t.col.item()) == (12, 12)


def test_of_equal_anchors_the_first_is_taken():
    anchors = torch.tensor([(2.0, 2.0), (2.0, 2.0)])
    t = region.encode(torch.tensor([[0.0, 0, 64, 64]]), torch.tensor([0]), torch.tensor([0]), anchors, (13, 13), 32)
    assert t.anchor.item() == 0


def test_no_objects_no_targets():
    assert encode(torch.zeros(0, 4), torch.zeros(0).long()).wins.numel() == 0


def test_decode_leaves_its_input_alone():
    raw = torch.randn(2, 24, 5, 7)
    before = raw.clone()
    decode(raw)
    assert torch.equal(raw, before)


def test_a_huge_size_logit_stays_finite():
    raw = torch.full((1, 24, 2, 2), 1e4)
    assert decode(raw).boxes.isfinite().all()


def test_objects_go_to_further_anchors_by_shape_and_never_displace_a_best_one():
    anchors = torch.tensor([[1.0, 1.0], [2.0, 2.0], [2.2, 2.0]])
    # one of shape 2.1 x 2 in cell (0, 0): best 2.2 x 2 (.955), also 2 x 2 (.952); one of 2 x 2 in the same cell
    boxes = torch.tensor([[0.0, 0, 67.2, 64], [0.0, 0, 64, 64], [128.0, 128, 160, 160]])
    targets = region.encode(boxes, torch.tensor([0, 1, 0]), torch.zeros(3).long(), anchors, (13, 13), 32)
    wide = region.assign_to_several(targets, anchors, 0.5)
    assert targets.anchor.tolist() == [2, 1, 0]
    assert len(wide.label) == 5
    assert wide.anchor.tolist() == [1, 2, 2, 1, 0]
    assert wide.wins.tolist() == [False, False, True, True, True]
    assert wide.weight[wide.wins].tolist() == [1.0, 1.0, 1.0]  # those that lost leave their share
    assert region.assign_to_several(targets, anchors, 1.0).anchor.tolist() == [2, 1, 0]
    alone = region.encode(boxes[:1], torch.tensor([0]), torch.zeros(1).long(), anchors, (13, 13), 32)
    found = region.assign_to_several(alone, anchors, 0.5)
    assert found.anchor.tolist() == [1, 2]
    assert found.wins.all()
    assert found.weight.tolist() == [0.5, 0.5]
    torch.testing.assert_close(found.twh[0], torch.tensor([2.1 / 2, 1.0]).log())


def test_further_anchors_of_ignored_objects_are_ignored_too():
    anchors = torch.tensor([[1.0, 1.0], [1.1, 1.0]])
    boxes, none = torch.tensor([[0.0, 0, 32, 32]]), torch.zeros(1).long()
    found = region.assign_to_several(region.encode(boxes, none, none, anchors, (13, 13), 32, none == 0), anchors, 0.5)
    assert found.ignore.tolist() == [True, True]
    assert not found.wins.any()
