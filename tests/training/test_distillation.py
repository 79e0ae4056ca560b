"""Tests of lookonce.training.distillation."""

import copy
import math
import os
import signal

import pytest
import torch

from kinds import KINDS, SIDE
from lookonce import train
from lookonce.data.augment import InputBatch
from lookonce.errors import ConfigError, Interrupted
from lookonce.model.layers import Detection, Region
from lookonce.model.model_file import load_model
from lookonce.model.network import Network
from lookonce.training.distillation import Teacher, distillation_loss, load_teacher
from lookonce.training.step import Training
from sets import nano

ANCHORS = ((1.0, 1.0), (1.6, 1.6))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def softmax(values):
    exponentials = [math.exp(value) for value in values]
    return [value / sum(exponentials) for value in exponentials]


def slow_numbers(raw, head):
    """All predictions of one image, each as [o, cx, cy, log w, log h, p...], from the formulas of the papers."""
    layer, found = head.layer, []
    if isinstance(layer, Detection):
        flat, cells = raw.flatten().tolist(), layer.side**2
        for cell in range(cells):
            probabilities = flat[cell * layer.classes : (cell + 1) * layer.classes]
            for box in range(layer.num):
                objectness = flat[cells * layer.classes + cell * layer.num + box]
                first = cells * (layer.classes + layer.num) + 4 * (cell * layer.num + box)
                x, y, w, h = flat[first : first + 4]
                sizes = [math.log(max(side**2 * SIDE, 1e-3)) for side in (w, h)]
                found.append([objectness, x + cell % layer.side, y + cell // layer.side, *sizes, *probabilities])
        return found
    num = len(layer.anchors)
    _, rows, cols = raw.shape
    for anchor in range(num):
        for row in range(rows):
            for col in range(cols):
                x, y, w, h, o, *classes = raw.view(num, -1, rows, cols)[anchor, :, row, col].tolist()
                scale, coords = getattr(layer, "scale_x_y", 1.0), getattr(layer, "new_coords", False)
                own = (lambda value: value) if coords else sigmoid
                anchors = [side * (head.stride if isinstance(layer, Region) else 1) for side in layer.anchors[anchor]]
                centre = [scale * own(t) - (scale - 1) / 2 + at for t, at in ((x, col), (y, row))]
                sizes = [(math.log((2 * t) ** 2) if coords else t) + math.log(a)
                         for t, a in zip((w, h), anchors, strict=True)]  # fmt: skip
                found.append([own(o), *centre, *sizes, *(softmax(classes) if isinstance(layer, Region) else
                                                         map(own, classes))])  # fmt: skip
    return found


def slow_loss(raws, aims, heads):
    total = 0.0
    for raw, aim, head in zip(raws, aims, heads, strict=True):
        for image in range(len(raw)):
            for own, goal in zip(slow_numbers(raw[image], head), slow_numbers(aim[image], head), strict=True):
                apart = [(a - b) ** 2 for a, b in zip(own, goal, strict=True)]
                total += (apart[0] + min(max(goal[0], 0), 1) * sum(apart[1:])) / 2 / len(raw)
    return total


def outputs(kind, seed):
    torch.manual_seed(seed)
    network = Network(KINDS[kind]()).eval()
    with torch.no_grad():
        raws = [raw.detach() for raw in network(torch.rand(2, 3, SIDE, SIDE))]
    return network, [raw + torch.rand_like(raw) * (0.9 if kind == "scaled v4" else 1.5) for raw in raws]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_a_slow_loop(kind):
    (network, raws), (_, aims) = outputs(kind, 0), outputs(kind, 1)
    found = float(distillation_loss(raws, aims, network.heads))
    assert found == pytest.approx(slow_loss(raws, aims, network.heads), rel=1e-4)
    assert found > 0.1
    assert float(distillation_loss(raws, raws, network.heads)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_network_alone_and_are_finite_for_any_output(kind):
    network, raws = outputs(kind, 0)
    for scale in (1, 1e3, -1e3):
        own, aims = ([(raw * scale).requires_grad_() for raw in raws] for _ in range(2))
        distillation_loss(own, [aim * 0.5 for aim in aims], network.heads).backward()
        assert all(torch.isfinite(raw.grad).all() for raw in own)
        assert all(aim.grad is None for aim in aims)


def test_a_teacher_predicts_as_in_detection_and_is_no_part_of_what_is_trained():
    network = Network(nano(2, ANCHORS)).eval()
    for norm in network.norms():
        norm.running_mean.normal_()
    teacher, images = Teacher(network), torch.rand(2, 3, 96, 96)
    none = torch.zeros(0, dtype=torch.long)
    with torch.no_grad():
        wanted = network(images)[0]
    torch.testing.assert_close(teacher(InputBatch(images, torch.zeros(0, 4), none, none, none.bool()))[0], wanted,
                               atol=1e-4, rtol=1e-4)  # fmt: skip
    assert copy.deepcopy(teacher) is teacher
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_a_teacher_with_other_heads_is_refused(run):
    with pytest.raises(ConfigError, match=r"teacher: .*: other heads than the network"):
        load_teacher(run, Network(nano(2, ANCHORS)))
    load_teacher(run, load_model(run).network)


GIVEN = {"size": 96, "steps": 8, "batch_size": 4, "anchors": 0, "recipe": "quick", "keep_checkpoints": True}


def test_a_resumed_run_finds_its_teacher_again_and_ends_as_one_that_was_not_stopped(
    run, squares, tmp_path, monkeypatch
):
    given = {**GIVEN, "network": run / "network.cfg", "teacher": run, "sparsity": 1e-3}
    whole = train(squares, out=tmp_path, name="whole", **given)
    assert "distillation_step" in (whole / "metrics.csv").read_text().splitlines()[0]
    take = Training.training_step

    def interrupted(self, batch, number):
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, batch, number)

    monkeypatch.setattr(Training, "training_step", interrupted)
    with pytest.raises(Interrupted):
        train(squares, out=tmp_path, name="cut", **given)
    monkeypatch.undo()
    states = [torch.load(one / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
              for one in (whole, train(resume=tmp_path / "cut"))]  # fmt: skip
    assert not any("teacher" in name for name in states[0])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_teacher_needs_images_not_cached_features(run, squares, tmp_path):
    with pytest.raises(ConfigError, match="teacher: it has to see the images"):
        train(squares, out=tmp_path, **GIVEN, network=run / "network.cfg", teacher=run, freeze=2, features="fp32")
