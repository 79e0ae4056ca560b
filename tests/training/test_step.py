"""Tests of lookonce.training.step."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lookonce.data.augment import InputBatch
from lookonce.data.augmentation import Augmentation
from lookonce.data.loader import ImageCache, TrainingImages, collate
from lookonce.data.read import read_dataset
from lookonce.errors import ConfigError, NonFiniteLossError
from lookonce.evaluation.average_precision import score
from lookonce.inference.backends import torch as torch_backend
from lookonce.model import zoo
from lookonce.model.heads import decode
from lookonce.model.layers import Conv, Region
from lookonce.model.network import Network
from lookonce.model.postprocess import Selection, postprocess
from lookonce.training import step as m
from lookonce.training.recipes import Settings, settings
from sets import nano, write_squares

ANCHORS = ((1.0, 1.0), (1.6, 1.6))


def training(monkeypatch, **given):
    torch.manual_seed(0)
    found = m.Training(Network(nano(2, ANCHORS)), Settings(size=96, augment=Augmentation.none(), **given), seed=0)
    monkeypatch.setattr(found, "log", lambda *_, **__: None)
    monkeypatch.setattr(type(found), "current_epoch", property(lambda _: 0))
    monkeypatch.setattr(type(found), "global_step", property(lambda _: 0))
    return found


@pytest.fixture
def images(tmp_path):
    return read_dataset(write_squares(tmp_path / "set", {"train": 6}))


def batch_of(dataset):
    found = TrainingImages(ImageCache(dataset, 96, None))
    return collate([found[i] for i in range(len(found))])


@pytest.mark.parametrize("loss", ["region", "region_ciou", "keras_yolo2"])
def test_each_loss_can_overfit_one_batch(loss, images, monkeypatch):
    module, batch = training(monkeypatch, loss=loss, learning_rate=1e-2), batch_of(images)
    optimizer = m.make_optimizer(module.network, module.settings)
    module.train()
    for _ in range(150):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
    module.network.train()  # one batch: its own statistics are the right ones
    inputs = batch.images.float() / 255
    with torch.no_grad():
        given = InputBatch(inputs, batch.boxes, batch.labels, batch.image_index, batch.ignore)
        predictions = module.validation_step(given, 0)[0]
    found = postprocess(predictions, [(96, 96)] * 6, (96, 96), "letterbox", images.labels, Selection(0.005))
    assert score(images, found, bootstrap=0).mean_ap == 1.0
    assert module.seen == 150 * 6


def test_a_loss_that_is_not_finite_stops_the_run_and_names_term_and_images(images, monkeypatch):
    module, batch = training(monkeypatch), batch_of(images)
    with torch.no_grad():
        module.network.convolution_list()[-1].conv.bias.view(2, 7)[:, 2] = float("nan")
    with pytest.raises(NonFiniteLossError, match="loss term 'wh' is not a finite number on the images 0, 1, 2"):
        module.training_step(batch, 0)


@pytest.mark.parametrize("loss", ["region", "region_ciou", "keras_yolo2"])
@pytest.mark.parametrize("mosaic", [False, True])
def test_a_step_reads_nothing_from_the_device(loss, mosaic, images, monkeypatch):
    """The device is meta: its tensors have no values, so that every read of one fails."""
    settings = {"loss": loss, "match_iou": 0.5, "prior_loss_images": 100}
    module, batch = training(monkeypatch, **settings).to("meta"), batch_of(images)
    monkeypatch.setattr(module, "uses_mosaic", lambda _: mosaic)
    monkeypatch.setattr(m.torch, "autocast", lambda *_, **__: nullcontext())  # it does not know meta
    batch.ignore[::3] = True
    with pytest.raises((NotImplementedError, RuntimeError)):  # the test can fail
        module.training_step(batch.to("meta"), 0).item()
    module.training_step(module.transfer_batch_to_device(batch, torch.device("meta"), 0), 1).backward()


def test_steps_on_a_device_are_read_together_and_before_a_checkpoint(images, monkeypatch):
    module, batch = training(monkeypatch), batch_of(images)
    monkeypatch.setattr(type(module), "device", property(lambda _: torch.device("cuda")))
    losses = [module.training_step(batch, step).item() for step in range(3)]
    assert not module.means.last
    module.read_steps()
    assert module.means.values()["loss"] == pytest.approx(sum(losses) / 3)
    with torch.no_grad():
        module.network.convolution_list()[-1].conv.bias.view(2, 7)[:, 2] = float("nan")
    module.training_step(batch, 3)  # not read yet
    with pytest.raises(NonFiniteLossError, match="images 0, 1, 2"):
        module.on_save_checkpoint({})


def test_every_tenth_step_is_a_row_for_each_logger(images, monkeypatch):
    rows, loggers = [], [SimpleNamespace(log_metrics=lambda row, step: rows.append((step, row)))] * 2
    module, batch = training(monkeypatch), batch_of(images)
    monkeypatch.setattr(m.Training, "loggers", property(lambda _: loggers))
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.25}])
    monkeypatch.setattr(m.Training, "trainer", SimpleNamespace(optimizers=[optimizer]), raising=False)
    losses = []
    for step in range(20):
        monkeypatch.setattr(m.Training, "global_step", property(lambda _, step=step: step))
        losses.append(module.training_step(batch, step).item())
    assert [step for step, _ in rows] == [9, 9, 19, 19]
    first, last = rows[0][1], rows[-1][1]
    assert {"xy_step", "wh_step", "ciou_step", "objectness_step", "background_step", "class_step"} < set(first)
    assert (first["seen"], first["rate"], first["epoch"]) == (60, 0.25, 0)
    assert (first["loss_step"], last["loss_step"]) == (losses[9], losses[19])
    reported = {}
    monkeypatch.setattr(module, "log_dict", reported.update)
    module.on_train_epoch_end()
    assert reported["loss_epoch"] == pytest.approx(sum(losses) / 20)


def test_a_batch_of_which_nothing_could_be_decoded_is_no_step(monkeypatch):
    assert training(monkeypatch).training_step(collate([None]), 0) is None


def test_the_prior_loss_is_counted_in_images_which_the_checkpoint_keeps(images, monkeypatch):
    module = training(monkeypatch, prior_loss_images=10)
    assert module.uses_prior_loss
    module.training_step(batch_of(images), 0)
    assert module.uses_prior_loss
    module.training_step(batch_of(images), 0)
    assert not module.uses_prior_loss
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    other = training(monkeypatch, prior_loss_images=10)
    other.on_load_checkpoint(checkpoint)
    assert not other.uses_prior_loss
    assert not training(monkeypatch).uses_prior_loss


def test_the_side_changes_every_ten_steps_and_only_with_the_seed(monkeypatch):
    module = training(monkeypatch, multi_scale=tuple(range(320, 609, 32)))
    sides = []
    for step in range(200):
        monkeypatch.setattr(type(module), "global_step", property(lambda _, step=step: step))
        sides.append(module.input_size()[0])
    assert all(len(set(sides[i : i + 10])) == 1 for i in range(0, 200, 10))
    assert len(set(sides)) > 5
    assert set(sides) <= set(module.settings.multi_scale)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_weights_decay_and_the_rest_does_not(name):
    network = Network(nano(2, ANCHORS))
    found = m.make_optimizer(network, Settings(optimizer=name, weight_decay=0.1))
    decayed, plain = (group["params"] for group in found.param_groups)
    assert [g["weight_decay"] for g in found.param_groups] == [0.1, 0.0]
    assert all(p.ndim == 4 for p in decayed)
    assert len(decayed) + len(plain) == len(list(network.parameters()))


def test_freeze_counts_convolutions():
    yolo = Network(zoo.yolov2(2, ANCHORS))
    tiny = Network(nano(2, ANCHORS))
    assert [m.frozen_convolutions(yolo, f) for f in ("none", "features", "all_but_last", "5")] == [0, 18, 22, 5]
    assert m.frozen_convolutions(yolo, "all_but_last_stage") == 13  # the maps of 13 x 13 begin with the 14th
    assert m.frozen_convolutions(tiny, "all_but_last") == 6
    with pytest.raises(ConfigError, match="18 convolutions of Darknet-19"):
        m.frozen_convolutions(tiny, "features")
    with pytest.raises(ConfigError, match="leave nothing to train"):
        m.frozen_convolutions(tiny, "7")


def test_frozen_weights_are_not_given_to_the_optimiser():
    network = Network(nano(2, ANCHORS))
    network.freeze(6)
    groups = m.make_optimizer(network, Settings()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_precision_is_chosen_by_what_the_machine_computes_fastest(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    for slow, precision, reason in ((False, "bf16-mixed", "instructions"), (True, "32-true", "more slowly")):
        monkeypatch.setattr(torch_backend, "is_bf16_slow", lambda slow=slow: slow)
        assert m.choose_precision("cpu")[0] == precision
        assert reason in m.choose_precision("cpu")[1]
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    assert m.choose_precision("cpu") == ("32-true", "fp32: this CPU has no AVX512-BF16 or AMX instructions")


def test_an_untrained_network_predicts_the_objectness_prior():
    network = Network(nano(2, ANCHORS)).eval()
    m.set_objectness_prior(network, 0.01)
    objectness = decode(network(torch.rand(1, 3, 96, 96)), network.heads).objectness
    assert 0.005 < objectness.mean() < 0.02


def test_the_gradient_is_limited_to_the_norm_of_the_settings_and_zero_leaves_it(images, monkeypatch):
    lengths = {}
    for limit in (0.0, 0.5):
        module = training(monkeypatch, gradient_clip=limit)
        module.training_step(batch_of(images), 0).backward()
        module.on_before_optimizer_step(m.make_optimizer(module.network, module.settings))
        lengths[limit] = torch.cat([p.grad.flatten() for p in module.network.parameters()]).norm().item()
    assert lengths[0.0] > 1
    assert lengths[0.5] == pytest.approx(0.5, rel=1e-4)


def overlap(ax, ay, aw, ah, bx, by, bw, bh):
    """IoU of boxes given by centre and size; tensors broadcast."""
    width = (torch.minimum(ax + aw / 2, bx + bw / 2) - torch.maximum(ax - aw / 2, bx - bw / 2)).clamp(min=0)
    height = (torch.minimum(ay + ah / 2, by + bh / 2) - torch.maximum(ay - ah / 2, by - bh / 2)).clamp(min=0)
    return width * height / (aw * ah + bw * bh - width * height)


def the_blogs_loss(raw, objects, anchors):
    """xy, wh, objectness, class of raw [B, A, 5+C, H, W] in double precision, object by object, as the blog writes it.

    objects: for each image (x, y, w, h, class) in cells. Scales: object 5, no object 1, coord 1, class 1.
    """
    rows, cols = raw.shape[-2:]
    xy = wh = conf = classes = torch.zeros((), dtype=torch.float64)
    count = counted = 0
    col, row = torch.arange(cols, dtype=torch.float64), torch.arange(rows, dtype=torch.float64)[:, None]
    for pred, own in zip(raw, objects, strict=True):
        x, y = pred[:, 0].sigmoid() + col, pred[:, 1].sigmoid() + row  # [A, H, W]
        w, h = (pred[:, 2 + n].exp() * torch.tensor([a[n] for a in anchors]).view(-1, 1, 1) for n in (0, 1))
        confidence, taken, best = pred[:, 4].sigmoid(), {}, torch.zeros_like(x)
        for bx, by, bw, bh, label in torch.tensor(own, dtype=torch.float64):
            best = torch.maximum(best, overlap(x, y, w, h, bx, by, bw, bh).detach())
            shapes = [min(bw, aw) * min(bh, ah) / (bw * bh + aw * ah - min(bw, aw) * min(bh, ah)) for aw, ah in anchors]
            taken[shapes.index(max(shapes)), int(by), int(bx)] = (bx, by, bw, bh, int(label))
        background = best < 0.6
        for place, (bx, by, bw, bh, label) in taken.items():
            background[place] = False
            found = overlap(x[place], y[place], w[place], h[place], bx, by, bw, bh)
            xy = xy + (x[place] - bx) ** 2 + (y[place] - by) ** 2
            wh = wh + (w[place] - bw) ** 2 + (h[place] - bh) ** 2
            conf = conf + 5 * (confidence[place] - found) ** 2
            classes = classes - pred[place[0], 5:, place[1], place[2]].log_softmax(0)[label]
        conf, count = conf + (confidence[background] ** 2).sum(), count + len(taken)
        counted += len(taken) + int(background.sum())
    return xy / (count + 1e-6) / 2, wh / (count + 1e-6) / 2, conf / (counted + 1e-6) / 2, classes / (count + 1e-6)


def test_ten_steps_of_the_blogs_recipe_are_those_of_its_loss_and_plain_adam_in_double_precision(monkeypatch):
    monkeypatch.setattr(m.Training, "trainer", SimpleNamespace(estimated_stepping_batches=100), raising=False)
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    how = settings("blog")
    layers = (*zoo.stage(8, 1), Conv(3 * 16), Conv(4 * 7, size=1, batch_normalize=False, activation="linear"),
              Region(how.anchor_sizes, 2))  # fmt: skip
    module = m.Training(Network(layers), how, seed=0)
    module.split_index = module.network.split_index
    last = module.network.convolution_list()[-1].conv
    features = torch.rand(3, 48, 13, 13, generator=draw)
    objects = [[(3.2, 4.7, 1.5, 2.5, 0), (3.4, 4.1, 1.2, 2.0, 1), (9.1, 9.9, 7.0, 8.0, 1)], [], [(6.5, 6.5, 10, 9, 0)]]
    [head] = module.network.heads
    flat = torch.tensor([(x, y, w, h) for own in objects for x, y, w, h, _ in own])
    batch = InputBatch(
        torch.zeros(0), torch.cat((flat[:, :2] - flat[:, 2:] / 2, flat[:, :2] + flat[:, 2:] / 2), 1) * head.stride,
        torch.tensor([label for own in objects for *_, label in own]), torch.tensor([0, 0, 0, 2]),
        torch.zeros(4, dtype=torch.bool), (features,),
    )  # fmt: skip
    weights = [last.weight.detach().double()[:, :, 0, 0].clone(), last.bias.detach().double().clone()]
    moments = [(torch.zeros_like(value), torch.zeros_like(value)) for value in weights]
    configured = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    module.train()
    for step in range(1, 11):
        for value in weights:
            value.requires_grad_()
        raw = torch.einsum("oc,bchw->bohw", weights[0], features.double()) + weights[1][:, None, None]
        expected = the_blogs_loss(raw.view(3, 4, 7, 13, 13), objects, how.anchor_sizes)
        gradients = torch.autograd.grad(sum(expected), weights)
        terms = module.loss_terms(module.raws(batch), batch)
        found = [terms[name].item() for name in ("xy", "wh", "objectness", "class", "total")]
        assert found == pytest.approx([value.item() for value in (*expected, sum(expected))], rel=1e-5), step
        for n, (gradient, (mean, square)) in enumerate(zip(gradients, moments, strict=True)):
            mean.mul_(0.9).add_(0.1 * gradient)
            square.mul_(0.999).add_(0.001 * gradient**2)
            moved = mean / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
            weights[n] = (weights[n] - 5e-5 * moved).detach()
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(last.weight[:, :, 0, 0].double(), weights[0], rtol=1e-5, atol=1e-7)


def test_sparsity_adds_the_gradient_of_the_sum_of_gammas(images, monkeypatch):
    module, batch = training(monkeypatch, sparsity=0.5, gradient_clip=1e-3), batch_of(images)
    own = [norm.weight for norm in module.network.norms()]
    with torch.no_grad():
        own[0][:3] = torch.tensor([-1.0, 0.0, 2.0])
    module.training_step(batch, 0).backward()
    clipped = SimpleNamespace(param_groups=[{"params": [*module.network.parameters()]}])
    monkeypatch.setattr(module, "settings", replace(module.settings, sparsity=0.0))
    module.on_before_optimizer_step(clipped)
    before = [gamma.grad.clone() for gamma in own]
    penalty = torch.autograd.grad(0.5 * sum(gamma.abs().sum() for gamma in own), own)
    monkeypatch.setattr(module, "settings", replace(module.settings, sparsity=0.5, gradient_clip=0.0))
    module.on_before_optimizer_step(clipped)  # the penalty is not clipped
    for gamma, was, added in zip(own, before, penalty, strict=True):
        torch.testing.assert_close(gamma.grad, was + added)
