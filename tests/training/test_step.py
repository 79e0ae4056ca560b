"""Tests of lookonce.training.step."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from lookonce.data.augment import InputBatch
from lookonce.data.augmentation import Augmentation
from lookonce.data.loader import ImageCache, TrainingImages, collate
from lookonce.data.read import read_dataset
from lookonce.errors import ConfigError, NonFiniteLossError
from lookonce.evaluation.average_precision import score
from lookonce.model import zoo
from lookonce.model.heads import decode
from lookonce.model.network import Network
from lookonce.model.postprocess import Selection, postprocess
from lookonce.training import step as m
from lookonce.training.recipes import Settings
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
        predictions = module.validation_step(given, 0)
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


def test_precision_is_chosen_by_what_the_machine_computes_in(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert m.choose_precision("cpu")[0] == "bf16-mixed"
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())
    assert m.choose_precision("cpu")[0] == "32-true"


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
