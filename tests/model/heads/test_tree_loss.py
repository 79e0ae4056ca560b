"""The region loss with a tree: its gradient is Darknet's delta, for images with boxes and with one label each."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model.heads.region import encode, region_loss
from lookonce.model.heads.tree_loss import surest, taught
from lookonce.model.layers import Region
from lookonce.model.losses import LossOptions
from lookonce.model.tree import Tree, read_tree

TREE = read_tree((GOLDEN / "dk_tree30.tree").read_text())
NUMBERS = np.load(GOLDEN / "dk_tree_train.npz")
MAP = NUMBERS["map"].tolist()
WHOLE = 100_000  # x and y of a truth above this: the image is labelled as a whole


def darknet_case(case):
    """(raw, targets, region) of a case; of an image with a label of its own, the boxes do not count."""
    raw = torch.from_numpy(NUMBERS["raw"])
    rows, cols = raw.shape[2:]
    real, labels = [], torch.full((len(raw),), -1)
    for image, truths in enumerate(NUMBERS[f"{case}_truth"]):
        used = truths[: int((truths[:, 0] == 0).argmax())]
        whole = used[used[:, 0] > WHOLE]
        if len(whole):
            labels[image] = int(whole[0, 4])  # the map does not apply
            continue
        real += [(image, *row[:4], MAP[int(row[4])] if "map" in case else row[4]) for row in used.tolist()]
    image, cx, cy, w, h, label = torch.tensor(real, dtype=torch.float64).unbind(-1)
    scale = torch.tensor([cols * 32, rows * 32] * 2)
    boxes = (torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), -1) * scale).float()
    anchors = torch.from_numpy(NUMBERS["anchors"])
    targets = encode(boxes, label.long(), image.long(), anchors, (rows, cols), 32)
    region = Region(tuple(map(tuple, anchors.tolist())), 30, class_scale=float(NUMBERS[f"{case}_opt_class_scale"]),
                    noobject_scale=float(NUMBERS[f"{case}_opt_noobject_scale"]), tree="dk_tree30.tree")  # fmt: skip
    return raw, replace(targets, image_labels=labels), region


@pytest.mark.parametrize("case", ["r1", "r2_map"])
@pytest.mark.parametrize("seen, prior", [(12799, True), (12800, False)])
def test_the_gradient_is_darknets_delta(case, seen, prior):
    raw, targets, region = darknet_case(case)
    raw = raw.clone().requires_grad_()
    region_loss(raw, targets, region, LossOptions(prior=prior, tree=TREE))["total"].mul(len(raw)).backward()
    np.testing.assert_allclose(-raw.grad.numpy(), NUMBERS[f"{case}_rawdelta_seen{seen}"], atol=5e-6)


def test_an_image_with_a_label_teaches_the_predictor_that_darknet_chooses():
    raw, targets, _ = darknet_case("r1")
    found = torch.stack(surest(raw, TREE, targets.image_labels, 3).place, 1)
    assert found.tolist() == NUMBERS["r1_class_only_image_anchor_row_col"].tolist()
    assert surest(raw, TREE, torch.full((6,), -1), 3) is None


def test_the_last_object_of_a_row_teaches_the_groups_that_it_shares_with_others():
    tree = Tree((-1, -1, 0, 0, 1, 1))  # two roots with two children each
    rows, nodes = taught(tree, torch.tensor([0, 0, 1]), torch.tensor([3, 4, 0]))
    pairs = sorted(zip(rows.tolist(), nodes.tolist(), strict=True))
    assert pairs == [(0, 1), (0, 3), (0, 4), (1, 0)]  # root 1 of the second object, both leaves


def test_a_step_with_image_labels_reads_nothing_from_the_device():
    raw, targets, region = darknet_case("r1")
    raw = raw.to("meta").requires_grad_()
    region_loss(raw, targets, region, LossOptions(prior=True, tree=TREE))["total"].backward()
