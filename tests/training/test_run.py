"""Tests of lookonce.training.run."""

import csv
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import CASES
from kinds import KINDS, SIDE
from lookonce import Detector, read_dataset, train
from lookonce.cli import make_app
from lookonce.commands.diagnose import diagnose
from lookonce.data.formats.voc import write_annotation
from lookonce.deploy.prune import choose, cut
from lookonce.errors import Interrupted, UserError
from lookonce.evaluation.average_precision import score
from lookonce.evaluation.evaluate import RULES, detect_all
from lookonce.files import LOCK
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.heads.region import LOSSES
from lookonce.model.layers import Conv, Dropout, Head, MaxPool, Yolo
from lookonce.model.model_file import load_model, save_model
from lookonce.model.sizes import num_floats
from lookonce.model.zoo import head
from lookonce.report.run_page import write_run_page
from lookonce.training import validation
from lookonce.training.checkpoints import WholeFiles
from lookonce.training.config import RunConfig, read_both, run_folder
from lookonce.training.recipes import settings
from lookonce.training.step import Training
from lookonce.training.validation import Validation
from sets import nano, two_heads, write_squares

SMALL = {"network": "nano", "size": 64, "epochs": 2, "batch_size": 4, "anchors": 2, "keep_checkpoints": True}
ONE_STEP = {**SMALL, "epochs": None, "steps": 1}


@pytest.fixture(scope="module")
def small(squares, tmp_path_factory):
    """A finished run of two epochs, 6 steps each."""
    return train(squares, out=tmp_path_factory.mktemp("small"), **SMALL)


@pytest.fixture
def copied(small, tmp_path):
    """The same, to be changed."""
    return Path(shutil.copytree(small, tmp_path / "copied"))


def last_checkpoint(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def trained(run):
    """Return how many images the run has seen."""
    return last_checkpoint(run)["seen"]


def replace_in_config(run, was, now):
    config = run / "config.yaml"
    assert was in config.read_text()
    config.write_text(config.read_text().replace(was, now))
    return run


def more_epochs(run):
    return replace_in_config(run, "epochs: 2", "epochs: 3")


def interrupt_at(step, monkeypatch):
    """Send SIGTERM to the run before this step."""
    take = Training.training_step

    def interrupted(self, batch, number):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, batch, number)

    monkeypatch.setattr(Training, "training_step", interrupted)


@pytest.fixture
def data(squares, tmp_path):
    """The squares, to be changed."""
    return Path(shutil.copytree(squares, tmp_path / "squares"))


def curve(run, name):
    with (run / "metrics.csv").open() as text:
        return [float(row[name]) for row in csv.DictReader(text) if row.get(name)]


def test_a_run_folder_holds_what_people_keep(run):
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "model.safetensors", "checkpoints", "metrics.csv", "report.html", "tensorboard"} <= names
    assert not names & {"images.u8", "images.state"}
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_run_learns(run):
    assert max(curve(run, "val/mAP")) > 0.8
    loss = curve(run, "loss_epoch")
    assert loss[-1] < loss[0] / 3


def test_the_model_is_the_best_and_says_how_it_came_about(run):
    model, maps = load_model(run), curve(run, "val/mAP")
    epochs = model.training["epoch"] + 1
    assert model.seen == 24 * epochs
    assert maps.index(max(maps)) + 1 == epochs * len(maps) / 60
    assert model.labels == ("blue", "red")
    assert all(0 < t < 1 for t in model.thresholds)
    assert model.training["recipe"]["loss"] == "region_ciou"


def scoring(maps, monkeypatch):
    """Give validations these mAPs. Return what will be the weights that they validate."""
    real, taken, validated = validation.score, Validation.on_validation_batch_end, []

    def watched(self, trainer, module, *rest):
        validated.append({name: value.clone() for name, value in module.network.state_dict().items()})
        taken(self, trainer, module, *rest)

    monkeypatch.setattr(validation, "score", lambda *a, **b: replace(real(*a, **b), mean_ap=next(maps)))
    monkeypatch.setattr(Validation, "on_validation_batch_end", watched)
    return validated


@pytest.mark.parametrize("minutes", [None, 1e-9], ids=["first and last", "every step"])
def test_the_best_model_is_the_validated_one_whenever_it_is_written(minutes, squares, tmp_path, monkeypatch):
    validated = scoring(iter((0.2, 0.5, 0.5, 0.4)), monkeypatch)
    run = train(squares, out=tmp_path, checkpoint_minutes=minutes, **{**SMALL, "epochs": 4})
    found = load_model(run)
    assert (found.training["epoch"], found.seen) == (1, 48)
    assert all(torch.equal(value, validated[1][key]) for key, value in found.network.state_dict().items())
    assert not torch.equal(*(one["convolutions.0.conv.weight"] for one in validated[1:3]))


def test_checkpoints_are_written_by_time_not_by_epoch(squares, tmp_path, monkeypatch):
    write, written = WholeFiles.save_checkpoint, []

    def noted(self, checkpoint, path, storage_options=None):
        written.append((Path(path).name, checkpoint["epoch"]))
        write(self, checkpoint, path)

    monkeypatch.setattr(WholeFiles, "save_checkpoint", noted)
    monkeypatch.setattr("lookonce.training.checkpoints.SHORTEST", 9.0)
    train(squares, out=tmp_path, **{**SMALL, "epochs": 5})
    assert written == [("last.ckpt", 0), ("last.ckpt", 4)]
    written.clear()
    train(squares, out=tmp_path, checkpoint_minutes=1e-9, **SMALL)
    assert len(written) == 12  # each step


def test_a_failed_run_keeps_the_best_model_so_far(squares, tmp_path, monkeypatch):
    scoring(iter((0.2, 0.5, 0.4)), monkeypatch)
    take = Training.training_step

    def fails(self, batch, number):
        if self.global_step == 13:
            raise UserError("no more")
        return take(self, batch, number)

    monkeypatch.setattr(Training, "training_step", fails)
    with pytest.raises(UserError, match="no more"):
        train(squares, out=tmp_path, name="r", **{**SMALL, "epochs": 3})
    assert load_model(tmp_path / "r").seen == 48
    assert last_checkpoint(tmp_path / "r")["seen"] == 24


def test_one_seed_gives_one_result_and_deterministic_changes_nothing_on_a_cpu(small, squares, tmp_path):
    found = [load_model(run).network.state_dict() for run in
             (small, train(squares, out=tmp_path, deterministic=True, **SMALL))]  # fmt: skip
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_resumed_run_ends_as_an_uninterrupted_one(squares, tmp_path, caplog):
    whole = train(squares, out=tmp_path, name="whole", **{**SMALL, "epochs": 2, "schedule": "constant"})
    half = train(squares, out=tmp_path, name="half", **{**SMALL, "epochs": 1, "schedule": "constant"})
    with caplog.at_level(logging.INFO, "lookonce"):
        train(resume=replace_in_config(half, "epochs: 1", "epochs: 2"))
    assert f"{half}: continues in epoch 2 of 2" in caplog.text
    states = [last_checkpoint(run) for run in (whole, half)]
    assert states[0]["seen"] == states[1]["seen"] == 48
    for key, value in states[0]["current_model_state"].items():
        torch.testing.assert_close(states[1]["current_model_state"][key], value)


def test_too_little_memory_is_one_line_that_says_what_may_fit(squares, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("lookonce.training.step.Training.loss_terms", full)
    with pytest.raises(UserError, match=r"^cpu: out of memory with 4 images of 64 px at once; start again with "
                       "--batch-size 2$"):  # fmt: skip
        train(squares, out=tmp_path, **SMALL)


def test_a_run_with_a_limit_of_time_fits_its_steps_and_ends_in_a_model(squares, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        run = train(squares, out=tmp_path, name="r", **{**SMALL, "epochs": 9999, "minutes": 0.001})
    assert "0.001 min, batch size 4" in caplog.text
    assert load_model(run).training["epoch"] == 0  # the time was over within the first epoch
    assert load_model(run).thresholds
    assert "minutes: 0.001" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("given", [
    {"loss": "keras_yolo2", "prior_loss_images": 30, "optimizer": "sgd", "learning_rate": 1e-3, "schedule": "steps"},
    {"multi_scale": (64, 96), "ema": 0.0, "optimizer": "rmsprop", "learning_rate": 1e-4, "schedule": "cosine"},
    {"freeze": "all_but_last", "val_split": "none", "resize": "stretch", "optimizer": "adam", "gradient_clip": 0.0},
    {"labels": ("red",), "patience": 1, "min_delta": 2.0, "epochs": 9, "workers": 1, "anchors": 0},
    {"precision": "bf16"}, {"precision": "fp32"},  # whatever this machine would take by itself
], ids=["blog", "scales", "frozen", "subset", "bf16", "fp32"])  # fmt: skip
def test_every_way_to_train_ends_in_a_model(given, squares, tmp_path):
    run = train(squares, out=tmp_path, **{**SMALL, **given})
    model = load_model(run)
    assert model.resize == given.get("resize", "letterbox_antialias")
    assert model.labels == given.get("labels", ("blue", "red"))
    if "patience" in given:
        assert len(curve(run, "loss_epoch")) < 9
    if "prior_loss_images" in given:
        assert model.seen == 48  # not the first epoch's, of 24 images
    if given.get("val_split") == "none":
        assert model.thresholds == ()


def test_images_of_extreme_shape_train_like_others(tmp_path):
    root = write_squares(tmp_path / "s", {"train": 4, "val": 2})
    for stem, size, box in (("train000", (1, 1), [0, 0, 1, 1]), ("train001", (20_000, 10), [500, 1, 9000, 9])):
        Image.new("RGB", size).save(root / "JPEGImages" / f"{stem}.png")
        write_annotation(root / "Annotations" / f"{stem}.xml", f"{stem}.png", size, np.array([box]), ["red"])
    found = read_dataset(root, "train")
    assert [p.kind for p in found.problems] == ["box with no area"]  # 1 to 1, in VOC's own counting
    assert (train(root, out=tmp_path, **{**SMALL, "epochs": 1}) / "model.safetensors").is_file()


def test_images_that_fail_at_their_first_decode_are_skipped_and_counted(tmp_path, caplog):
    root = write_squares(tmp_path / "s", {"train": 6, "val": 2})
    file = root / "JPEGImages" / "train001.png"
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(file)
    content = bytearray(file.read_bytes())
    content[9000:9100] = bytes(100)  # head and end are whole: only decoding finds it
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING, "lookonce"):
        train(root, out=tmp_path, **SMALL)
    assert "1 images could not be decoded and were skipped, the first: JPEGImages/train001.png" in caplog.text


@pytest.mark.parametrize("given, message", [
    ({"epochs": 0}, "epochs: 0"),
    ({"batch_size": 25}, "batch-size: 25; the training split has 24 images"),
    ({"labels": ("green",)}, "no object is a 'green'"),
    ({"train_split": "tarin"}, "no split 'tarin'"),
    ({"data": None}, "data: missing"),
    ({"freeze": "features"}, "18 convolutions of Darknet-19"),
    ({"resume": "nowhere"}, "expected the folder of a run"),
    ({"device": "abacus"}, "device: 'abacus'; expected auto, cpu, cuda"),
    ({"steps": 0}, "steps: 0"),
    ({"seed": -1}, "seed: -1"),
    ({"workers": -1}, "workers: -1"),
    ({"size": "64"}, "size: '64'; expected a whole number"),
    ({"weights": "nowhere.safetensors"}, "weights: nowhere.safetensors: no such file; expected a model file"),
    ({"network": "own.cfg"}, "own.cfg: cannot be read"),
])  # fmt: skip
def test_wrong_input_is_refused_before_anything_is_written(given, message, squares, tmp_path):
    given = {"data": squares, "out": tmp_path / "runs", **SMALL, **given}
    if "resume" in given:
        given = {"resume": Path(given["resume"])}
    with pytest.raises(UserError, match=message) as error:
        train(**given)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_pixel_range_of_thermal_images_is_measured_and_kept(squares, tmp_path, caplog):
    """The squares as 16-bit grey of 51000 to 51255: what /257 would make flat."""
    root = shutil.copytree(squares, tmp_path / "thermal")
    for file in (root / "JPEGImages").iterdir():
        grey = np.asarray(Image.open(file).convert("L"), np.uint16) + np.uint16(51_000)
        Image.fromarray(grey).save(file)
    caplog.set_level(logging.WARNING)
    run = train(root, out=tmp_path, **SMALL)
    assert "flat" not in caplog.text
    low, high = load_model(run).pixel_range
    assert 51_000 <= low < 51_100 < high < 51_255
    assert f"pixel_range:\n- {low}\n- {high}\n" in (run / "config.yaml").read_text()
    ours, usual = (Detector(m, threshold=0.0) for m in (run, replace(load_model(run), pixel_range=None)))
    from_file, from_array = ours(file), ours(np.asarray(Image.open(file)))
    np.testing.assert_array_equal(from_file.scores, from_array.scores)
    assert not np.array_equal(from_file.scores, usual(file).scores)
    again = train(root, out=tmp_path, name="given", pixel_range=(50_000.0, 52_000.0), **ONE_STEP)
    assert load_model(again).pixel_range == (50_000, 52_000)
    with pytest.raises(UserError, match=r"pixel-range: .*expected two numbers in ascending order"):
        train(root, out=tmp_path, pixel_range=(2.0, 1.0), **SMALL)


def test_resume_takes_no_other_setting(run):
    for name, given in {"epochs": 5, "out": "x", "seed": 3, "labels": ("red",), "device": "cpu", "epoch": 3}.items():
        with pytest.raises(UserError, match=f"so --{name} cannot be given; leave it out"):
            train(resume=run, **{name: given})


def test_a_run_is_not_overwritten(run, squares, tmp_path):
    with pytest.raises(UserError, match="holds a run already"):
        train(squares, out=run.parent, name=run.name, **SMALL)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.yaml").write_text("the user's")
    with pytest.raises(UserError, match="notes: is not empty already; give another --name"):
        train(squares, out=tmp_path, name="notes", **SMALL)
    assert (tmp_path / "notes" / "config.yaml").read_text() == "the user's"


def test_a_subset_without_objects_is_refused(tmp_path):
    root = write_squares(tmp_path / "s", {"train": 3, "val": 3}, seed=1)
    for file in (root / "Annotations").glob("train*.xml"):
        file.write_text(file.read_text().replace("red", "blue"))
    for file in (root / "Annotations").glob("val*.xml"):
        file.write_text(file.read_text().replace("blue", "red"))
    with pytest.raises(UserError, match="split 'train' has no objects to learn from"):
        train(root, out=tmp_path, labels=("red",), **SMALL)


def test_a_full_disk_is_one_line_and_leaves_no_model(squares, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.Trainer.save_checkpoint", full)
    with pytest.raises(
        UserError,
        match=r"training stopped: No space left on device; free space.*no checkpoint yet: give the same command again",
    ):
        train(squares, out=tmp_path, name="full", **SMALL)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_write_permission_is_refused(squares, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(squares, out=tmp_path / "file", name="x", **SMALL)


def test_a_full_disk_leaves_the_previous_checkpoint(copied, monkeypatch):
    run = more_epochs(copied)
    before = (run / "checkpoints" / "last.ckpt").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lookonce.training.checkpoints.os.fsync", full)
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be written: No space left on device.*--resume"):
        train(resume=run)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    monkeypatch.undo()
    assert trained(train(resume=run)) == 72


@pytest.fixture(scope="module")
def uninterrupted(squares, tmp_path_factory):
    """Uninterrupted runs without mosaics and with them."""
    out = tmp_path_factory.mktemp("uninterrupted")
    return [train(squares, out=out, **SMALL, augment={"mosaic": mosaic}) for mosaic in (0, 1)]


@pytest.mark.parametrize("step, workers, mosaic", [(8, 0, 0), (5, 0, 0), (3, 1, 0), (3, 0, 1)],
                         ids=["middle", "end of an epoch", "workers", "mosaics"])  # fmt: skip
def test_a_run_stopped_by_a_signal_and_resumed_ends_as_one_that_was_not(
    step, workers, mosaic, uninterrupted, squares, tmp_path, monkeypatch
):
    given = {**SMALL, "workers": workers, "augment": {"mosaic": mosaic}}
    whole = uninterrupted[mosaic]
    interrupt_at(step, monkeypatch)
    with pytest.raises(Interrupted, match="continue with: lookonce train --resume") as stop:
        train(squares, out=tmp_path, name="cut", **given)
    assert stop.value.exit_code == 143
    monkeypatch.undo()
    states = [last_checkpoint(run) for run in (whole, train(resume=tmp_path / "cut"))]
    assert [state["seen"] for state in states] == [48, 48]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, states[1][part][key]) for key, value in states[0][part].items())
    assert curve(whole, "val/mAP") == curve(tmp_path / "cut", "val/mAP")
    assert curve(whole, "epoch") == curve(tmp_path / "cut", "epoch")


def test_a_batch_whose_loss_is_not_finite_is_kept(squares, tmp_path, monkeypatch):
    def broken(raw, targets, region, options):
        return {"wh": raw.sum() * float("nan"), "total": raw.sum()}

    monkeypatch.setitem(LOSSES, "region_ciou", broken)
    with pytest.raises(UserError, match="loss term 'wh' is not a finite number on the images JPEGImages/train"):
        train(squares, out=tmp_path, name="r", **SMALL)
    kept = load_file(tmp_path / "r" / "bad_batch.safetensors")
    assert kept["images"].shape == (4, 3, 96, 96)
    assert len(kept["boxes"]) == len(kept["labels"])


def test_the_page_shows_scores_anchors_and_advice(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "first the worst by F1, then the best" in page
    assert "anchor recall" in page
    assert re.search(r"validation</th>\s*<td>torch [^,]+, fp32, c", page)
    assert "scores &gt; 0.005" in page
    assert "oo few examples of these classes: blue" in page


@pytest.mark.parametrize("split", ["val", "none"])
def test_a_run_writes_into_its_own_folder_only(split, squares, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = train(squares, out=tmp_path / "runs", val_split=split, **ONE_STEP)
    assert not list((tmp_path / "here").iterdir())
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["last.ckpt"]


def test_an_interrupt_before_the_first_step_says_what_to_do(squares, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lookonce.training.feature_cache.fill", stop)
    with pytest.raises(Interrupted, match=r"stopped before training began; no checkpoint yet: .*features computed"):
        train(squares, out=tmp_path, name="r", freeze="4", features="bf16", **SMALL)
    assert not (tmp_path / "r").exists()


def test_a_cfg_is_trained_for_the_classes_and_anchors_of_the_data(squares, tmp_path):
    cfg = tmp_path / "own.cfg"
    cfg.write_text(write_cfg(Cfg(nano(7, ((1.0, 1.0),) * 3))))
    made = train(squares, out=tmp_path, name="r", **{**ONE_STEP, "network": str(cfg)})
    model = load_model(made)
    assert model.network.layers == nano(2, model.heads[0].layer.anchors)
    assert read_cfg((made / "network.cfg").read_text()).layers == model.network.layers
    assert read_cfg((made / "network.cfg").read_text()).width == 64
    kept = train(squares, out=tmp_path, name="k", **{**ONE_STEP, "network": str(cfg), "anchors": 0})
    assert load_model(kept).heads[0].layer.anchors == ((1.0, 1.0),) * 3


def test_a_network_of_two_heads_is_trained_explained_and_used(squares, tmp_path):
    cfg = tmp_path / "own.cfg"
    cfg.write_text(write_cfg(Cfg(two_heads(7, ((1.0, 1.0),), ((1.0, 1.0),)))))
    made = train(squares, out=tmp_path, name="r", network=str(cfg), size=64, epochs=1, batch_size=4, anchors=3,
                 keep_checkpoints=True)  # fmt: skip
    model = load_model(made)
    coarse, fine = (head.layer.anchors for head in model.heads)
    assert model.layers == two_heads(2, coarse, fine)
    assert (len(coarse), len(fine)) == (1, 2)
    assert max(w * h for w, h in model.heads[1].anchors_px) <= min(w * h for w, h in model.heads[0].anchors_px)
    config = made / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))
    assert trained(train(resume=made)) == 48
    checks = {check.name: check for check in diagnose(made, squares, steps=0).checks}
    assert (checks["anchors"].state, checks["shared cells"].state) == ("pass", "pass")
    with pytest.raises(UserError, match="anchors: 1; expected at least 2, one for each head"):
        train(squares, out=tmp_path, network=str(cfg), size=64, epochs=1, batch_size=4, anchors=1)


def test_a_network_with_a_yolo_layer_is_trained_with_its_own_loss_and_used(squares, tmp_path):
    last = Conv(36, 1, 1, False, "linear"), Yolo(((40.0, 40.0),) * 3, (0, 1, 2), 7)
    layers = (*(Conv(8), MaxPool()) * 3, Conv(16), *last)
    (tmp_path / "v3.cfg").write_text(write_cfg(Cfg(layers, 96, 96)))
    made = train(
        squares, out=tmp_path, name="r", network=tmp_path / "v3.cfg", size=96, epochs=2, batch_size=4, anchors=3
    )
    model = load_model(made)
    [found] = model.heads
    assert (found.layer.classes, found.layer.mask, model.training["recipe"]["loss"]) == (2, (0, 1, 2), "region")
    assert list(found.layer.all_anchors) != [(40.0, 40.0)] * 3  # clustered on the training boxes
    assert len(Detector(made)(next((squares / "JPEGImages").iterdir()), threshold=0.0)) > 0
    with pytest.raises(UserError, match="loss=keras_yolo2: yolo layers cannot be trained"):
        train(squares, out=tmp_path, network=tmp_path / "v3.cfg", size=96, epochs=1, loss="keras_yolo2")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_head_is_trained_on_cached_features_pruned_and_used(kind, squares, tmp_path):
    (tmp_path / "kind.cfg").write_text(write_cfg(Cfg(KINDS[kind](), SIDE, SIDE)))
    folder = train(squares, network=str(tmp_path / "kind.cfg"), size=SIDE, steps=2, batch_size=4, anchors=0, freeze=2,
                   features="fp32", out=tmp_path)  # fmt: skip
    model = load_model(folder)
    assert [type(head.layer) for head in model.heads] == [type(x) for x in KINDS[kind]() if isinstance(x, Head)]
    smaller = cut(model.network, choose(model.network, 0.3))
    assert num_floats(smaller.layers) < num_floats(model.layers)
    for network in (model.network, smaller):
        found = Detector(replace(model, loaded=network), "torch", threshold=1e-6)(np.zeros((SIDE, SIDE, 3), np.uint8))
        assert len(found)
        assert np.isfinite(found.boxes).all()


def test_the_input_size_of_a_cfg_divides_by_its_own_stride(squares, tmp_path):
    cfg = tmp_path / "own.cfg"
    grow = [layer for filters in (8, 16, 16, 32) for layer in (Conv(filters), MaxPool())]
    cfg.write_text(write_cfg(Cfg((*grow, *head(2, ((1.0, 1.0),))))))
    model = load_model(train(squares, out=tmp_path, **{**ONE_STEP, "network": str(cfg), "size": 80}))
    assert (model.input_size, model.heads[0].stride) == ((80, 80), 16)
    with pytest.raises(UserError, match="100 x 100 px; expected sides that are positive multiples of 16"):
        train(squares, out=tmp_path, **{**ONE_STEP, "network": str(cfg), "size": 100})


def test_a_resumed_run_needs_no_cfg_but_its_own(copied):
    assert trained(train(resume=replace_in_config(more_epochs(copied), "network: nano", "network: gone.cfg"))) == 72


@pytest.mark.parametrize("layers, message", [
    ((Conv(8), MaxPool(2, 128), *nano(2, ((1.0, 1.0),))[-2:]), r"64 x 64 px; expected .* positive multiples of 128"),
    ((Conv(8), MaxPool()), r"own\.cfg: ends in MaxPool; expected a convolution and a \[region\]"),
    (None, r"own\.cfg: cannot be read"),
])  # fmt: skip
def test_a_cfg_that_cannot_be_trained_is_refused(squares, tmp_path, layers, message):
    cfg = tmp_path / "own.cfg"
    if layers:
        cfg.write_text(write_cfg(Cfg(layers)))
    with pytest.raises(UserError, match=message):
        train(squares, out=tmp_path, network=str(cfg), size=64, epochs=1)


def test_a_set_with_train_only_says_how_to_train_without_validation(tmp_path):
    with pytest.raises(UserError, match=r"no split 'val'; there are train .6 images.*--val-split none"):
        train(CASES / "42-small-set-without-val" / "only-train", out=tmp_path / "runs", **SMALL)
    assert not (tmp_path / "runs").exists()


def test_few_validation_images_and_the_splits_are_logged_in_a_line_each(caplog):
    tiny = CASES / "42-small-set-without-val" / "tiny8"
    plan = RunConfig(str(tiny), None, "train", "val", "drop", False, 0, 0, "auto", "auto", False, None, None,
                settings("quick"), False)  # fmt: skip
    with caplog.at_level(logging.INFO, "lookonce"):
        train_set, val_set = read_both(plan)
    assert (len(train_set), len(val_set)) == (6, 1)
    assert f"{tiny}: split: train 6, val 1, test 1 images, no lists: 80/10/10 by a hash" in caplog.text
    assert "few images to validate on: 1 in split 'val'; below 20 mAP varies by chance" in caplog.text


@pytest.mark.parametrize("steps, epochs", [(4, 1), (6, 1), (8, 2)])  # 6 steps an epoch
def test_a_run_takes_the_steps_that_it_is_given(steps, epochs, squares, tmp_path):
    given = {**SMALL, "epochs": None, "steps": steps}
    run = train(squares, out=tmp_path, **given)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["global_step"], last["seen"]) == (steps, 4 * steps)
    assert last["lr_schedulers"][0]["last_epoch"] == steps
    assert last["lr_schedulers"][0]["_last_lr"][0] < 4e-3 / 50  # one_cycle has come to its end
    assert len(curve(run, "val/mAP")) == len(curve(run, "loss_epoch")) == epochs
    assert load_model(run).seen == 4 * steps
    assert load_model(run).thresholds


@pytest.mark.parametrize("step", [2, 5], ids=["middle", "end of an epoch"])
def test_a_run_by_steps_that_is_stopped_ends_as_one_that_was_not(step, squares, tmp_path, monkeypatch):
    given = {**SMALL, "epochs": None, "steps": 8}
    whole = train(squares, out=tmp_path, name="whole", **given)
    interrupt_at(step, monkeypatch)
    with pytest.raises(Interrupted, match=f"stopped after {4 * (step + 1)} images"):
        train(squares, out=tmp_path, name="cut", **given)
    monkeypatch.undo()
    states = [last_checkpoint(run) for run in (whole, train(resume=tmp_path / "cut"))]
    assert [state["global_step"] for state in states] == [8, 8]
    assert all(torch.equal(value, states[1]["state_dict"][key]) for key, value in states[0]["state_dict"].items())


def test_dropout_continues_its_random_numbers_in_a_resumed_run(squares, tmp_path, monkeypatch):
    first, *rest = nano(2, ((1.0, 1.0),))
    (tmp_path / "own.cfg").write_text(write_cfg(Cfg((first, Dropout(0.3), *rest))))
    given = {**SMALL, "anchors": 0, "epochs": None, "steps": 8, "network": str(tmp_path / "own.cfg"), "ema": 0.0}
    whole = train(squares, out=tmp_path, name="whole", **given)
    for stop in (3, 5):  # in the middle of an epoch, and at its end
        interrupt_at(stop, monkeypatch)
        with pytest.raises(Interrupted):
            train(squares, out=tmp_path, name=f"cut{stop}", **given)
        monkeypatch.undo()
        states = [last_checkpoint(run)["state_dict"] for run in (whole, train(resume=tmp_path / f"cut{stop}"))]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items()), stop


@pytest.mark.parametrize("split", ["val", "none"])
def test_a_run_that_still_trains_can_be_used(split, squares, tmp_path, monkeypatch):
    take, found = Training.training_step, []

    def looked_at(self, batch, number):
        if self.global_step == 7:
            model = load_model(tmp_path / "r")
            state = last_checkpoint(tmp_path / "r")
            name = "convolutions.0.conv.weight"
            assert torch.equal(model.network.state_dict()[name], state["state_dict"][f"network.{name}"])
            found.append((model.seen, len(model.thresholds), model.training["finished"]))
        return take(self, batch, number)

    monkeypatch.setattr(Training, "training_step", looked_at)
    run = train(squares, out=tmp_path, name="r", val_split=split, **SMALL)
    assert found == [(24, 2 if split == "val" else 0, False)]
    assert load_model(run).training["finished"] is True


def test_a_finished_run_of_version_0_1_is_known_as_finished(copied, caplog):
    model = load_model(copied)
    recipe = dict(model.training["recipe"])
    recipe["warm_up_images"] = recipe.pop("prior_loss_images")
    save_model(replace(model, training={**model.training, "recipe": recipe}), copied / "model.safetensors")
    train(resume=copied)
    assert "copied: finished already" in caplog.text


def test_a_finished_run_logs_so_and_how_to_train_it_further(copied, caplog):
    before = {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file()}
    assert train(resume=copied) == copied
    assert "copied: finished already; to train it further, start a new run from it: lookonce train" in caplog.text
    assert {p: p.stat().st_mtime_ns for p in copied.rglob("*") if p.is_file()} == before


def test_the_command_that_a_finished_run_logs_trains_it_further(small, squares, tmp_path, caplog):
    train(resume=small)
    words = shlex.split(caplog.messages[-1].partition("lookonce train ")[2])
    bound = make_app().parse_args(["train", *words, "--steps", "1", "--out", str(tmp_path)])[1]
    run = train(*bound.args, **bound.kwargs)
    assert load_model(run).heads == load_model(small).heads


def test_a_run_resumes_from_any_working_folder(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(squares.parent)
    run = train(Path(squares.name), out=tmp_path, **{**SMALL, "epochs": 1})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert trained(train(resume=replace_in_config(run, "epochs: 1", "epochs: 2"))) == 48


def test_data_that_has_moved_is_found_at_its_new_path(copied, data, squares):
    run = replace_in_config(more_epochs(copied), f"data: {squares}", f"data: {squares.parent / 'gone'}")
    with pytest.raises(UserError, match=r"gone: the data of .*copied is not there; if it has moved, give its new path"):
        train(resume=run)
    assert trained(train(data, resume=run)) == 72
    assert str(data) in (run / "config.yaml").read_text()


def test_the_last_checkpoint_knows_the_best(small):
    last = torch.load(small / "checkpoints" / "last.ckpt", weights_only=True)
    [state] = [value for key, value in last["callbacks"].items() if "BestCheckpoint" in key]
    assert state["best_model_score"] == pytest.approx(max(curve(small, "val/mAP")))


def test_a_copied_run_resumes_with_its_own_best_and_does_not_change_the_other(copied, tmp_path):
    before = (copied / "model.safetensors").read_bytes()
    copy = more_epochs(Path(shutil.copytree(copied, tmp_path / "copy")))
    last = last_checkpoint(copy)
    best = {key: {"best_model_score": torch.tensor(2.0), "best_model_path": "of version 0.2"}
            for key in last["callbacks"] if "BestCheckpoint" in key}  # fmt: skip
    assert len(best) == 1
    torch.save({**last, "callbacks": {**last["callbacks"], **best}}, copy / "checkpoints" / "last.ckpt")
    again = load_model(train(resume=copy))
    assert again.training["finished"]
    assert again.training["recipe"]["epochs"] == 3
    for key, value in load_model(copied).network.state_dict().items():  # nothing is better than 2
        assert torch.equal(value, again.network.state_dict()[key])
    assert (copied / "model.safetensors").read_bytes() == before


def test_a_run_whose_best_model_is_gone_takes_the_best_from_there_on(copied):
    (copied / "model.safetensors").write_bytes(b"")
    assert load_model(train(resume=more_epochs(copied))).seen == 72


def renamed(data, was, now):
    for file in (data / "Annotations").iterdir():
        file.write_text(file.read_text().replace(f">{was}<", f">{now}<"))


def moved(data):
    file = data / "Annotations" / "train003.xml"
    file.write_text(re.sub(r"<xmax>\d+", "<xmax>96", file.read_text(), count=1))


def relisted(data):
    lists = data / "ImageSets" / "Main"
    text = (lists / "train.txt").read_text()
    (lists / "train.txt").write_text(text.replace("train005\n", ""))
    (lists / "val.txt").write_text((lists / "val.txt").read_text() + "train005\n")


@pytest.mark.parametrize("change, said", [
    (lambda data: renamed(data, "red", "aqua"), "class 0 was 'blue', the data now has 'aqua'"),
    (lambda data: (data / "Annotations" / "train000.xml").write_text(
        (data / "Annotations" / "train000.xml").read_text().replace("red", "green").replace("blue", "green")),
     r"the run has 2 classes \(blue, red\), the data now has 3 \(blue, green, red\)"),
    (moved, "of the images of split 'train' 1 have other labels, the first: JPEGImages/train003.png"),
    (relisted, "of the images of split 'train' 1 are gone, the first: JPEGImages/train005.png"),
], ids=["renamed", "added", "moved", "relisted"])  # fmt: skip
def test_a_run_is_not_resumed_on_other_data(change, said, data, small, tmp_path):
    run = more_epochs(Path(shutil.copytree(small, tmp_path / "run")))
    model = (run / "model.safetensors").read_bytes()
    change(data)
    with pytest.raises(UserError, match=f"not the data that .*run was trained on: {said}; restore it") as error:
        train(data, resume=run)
    assert "\n" not in str(error.value)
    assert (run / "model.safetensors").read_bytes() == model


def test_a_run_of_an_earlier_version_resumes_without_comparing(copied, caplog):
    (copied / "data.json").unlink()
    config = more_epochs(copied) / "config.yaml"
    config.write_text(config.read_text().replace("steps: null", "steps: 6"))  # which it only aimed at
    assert trained(train(resume=copied)) == 72
    assert "a run of version 0.1, which kept no list of its data" in caplog.text
    assert (copied / "data.json").is_file()


def test_the_last_layer_is_kept_for_the_same_classes_only(small, data, tmp_path):
    own = {"network": str(small / "network.cfg"), "size": 64, "anchors": 0, "steps": 1, "out": tmp_path / "runs"}
    with pytest.raises(UserError, match=r"same classes in another order; give theirs: --labels blue red"):
        train(data, weights=small, keep_last=True, labels=("red", "blue"), **own)
    renamed(data, "red", "aqua")
    with pytest.raises(UserError, match=r"class 0 is 'blue' in .* and 'aqua' in the data; leave out --keep-last"):
        train(data, weights=small, keep_last=True, **own)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "other network", "no optimizer", "config", "cfg"])
def test_a_damaged_run_is_one_line_and_stays_as_it_is(damage, copied, caplog):
    last = more_epochs(copied) / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    match damage:
        case "cut":
            last.write_bytes(content[:-5000])
        case "flipped":
            last.write_bytes(content[:9000] + bytes([content[9000] ^ 255]) + content[9001:])
        case "text":
            last.write_text("hello")
        case "other network":
            state = torch.load(last, weights_only=True)
            state["state_dict"]["network.convolutions.0.conv.weight"] = torch.zeros(1, 2, 3, 4)
            torch.save(state, last)
        case "no optimizer":
            state = torch.load(last, weights_only=True)
            torch.save({**state, "optimizer_states": [3], "loops": {}}, last)
        case "config":
            (copied / "config.yaml").write_text("size: [")
        case "cfg":
            (copied / "network.cfg").write_text("[net]\n[convolutional]\nfilters=3\n")
    before = {p: p.read_bytes() for p in copied.rglob("*.ckpt")}
    with pytest.raises(UserError) as error:
        train(resume=copied)
    assert str(error.value).isprintable()
    assert {p: p.read_bytes() for p in copied.rglob("*.ckpt")} == before
    assert not list(copied.rglob("images.*"))


def test_a_complete_run_keeps_no_checkpoints_and_says_how_to_go_on(squares, tmp_path, caplog):
    run = train(squares, out=tmp_path, **{**SMALL, "keep_checkpoints": False})
    assert not (run / "checkpoints").exists()
    files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    caplog.clear()
    assert train(resume=run) == run
    assert "finished already; to train it further, start a new run from it: lookonce train" in caplog.text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path in files} == files


def test_results_have_one_row_an_epoch(small):
    with (small / "results.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["loss"]) > 0 and 0 <= float(row["val_mAP"]) <= 1 for row in rows)
    assert all(any(row[column] for row in rows) for column in rows[0])  # no empty column


def test_a_run_survives_any_metrics_file(copied, monkeypatch):
    monkeypatch.setattr("lookonce.report.run_page.write_run_page", write_run_page)
    (more_epochs(copied) / "metrics.csv").write_bytes(b"epoch,step,loss_epoch\n\xff,1e400,\0\n0,-1,2\n")
    train(resume=copied)
    assert "<svg" in (copied / "report.html").read_text(encoding="utf-8")


def test_runs_that_start_together_have_folders_of_their_own(squares, tmp_path):
    with run_folder(tmp_path, None, "squares") as one, run_folder(tmp_path, None, "squares") as two:
        assert (one.name, two.name) == ("squares-1", "squares-2")


def test_what_a_killed_start_left_is_taken_over_under_the_same_name(tmp_path):
    folder = tmp_path / "r"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "canvas.u8", LOCK):
        (folder / name).write_text("")
    with run_folder(tmp_path, "r", "") as found:
        assert [p.name for p in found.iterdir()] == [LOCK]
    for name in (LOCK, "config.yaml", "model.safetensors"):  # killed between its first best and its first last.ckpt
        (folder / name).write_text("")
    with run_folder(tmp_path, "r", "") as found:
        assert [p.name for p in found.iterdir()] == [LOCK]
    (folder / LOCK).write_text("")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_text("")
    with pytest.raises(UserError, match="r: holds a run already"), run_folder(tmp_path, "r", ""):
        pass


@pytest.mark.parametrize("where", ["lookonce.training.config.read_splits", "lookonce.training.run.ImageCache"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_that_is_interrupted_leaves_no_folder(where, number, squares, tmp_path, monkeypatch):
    monkeypatch.setattr(where, lambda *_, **__: signal.raise_signal(number))
    with pytest.raises(Interrupted, match="stopped before training began") as stop:
        train(squares, out=tmp_path / "runs", **SMALL)
    assert stop.value.exit_code == 128 + number
    assert not list(tmp_path.iterdir())


def test_a_machine_without_a_gpu_says_so_before_anything_is_made(squares, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:0", 0):
        with pytest.raises(
            UserError, match=r"device: cuda.*; PyTorch .* finds 0 CUDA GPUs on this machine; use device"
        ):
            train(squares, out=tmp_path / "runs", device=device, **SMALL)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"device: mps; PyTorch .* finds no Apple GPU here; use device auto or cpu"):
        train(squares, out=tmp_path / "runs", device="mps", **SMALL)
    assert not (tmp_path / "runs").exists()
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("device: auto", "device: cuda"))
    with pytest.raises(UserError, match="device: cuda"):
        train(resume=copied)


def test_without_a_terminal_stdout_has_the_result_only_and_stderr_a_line_an_epoch(squares, tmp_path):
    words = ["train", str(squares), "--network", str(tmp_path / "own.cfg"), "--size", "64", "--steps", "13", "--out",
             str(tmp_path / "runs")]  # fmt: skip
    (tmp_path / "own.cfg").write_text(write_cfg(Cfg(nano(2, ((1.0, 1.0),)))))
    command = [sys.executable, "-c", "from lookonce.__main__ import entry; entry()"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    assert done.stdout == f"{tmp_path / 'runs' / 'squares-1'}\n"
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2  # 8 steps an epoch
    assert re.fullmatch(r"epoch 1/2: loss \S+, val mAP \S+ \(best \S+\), \S+ images/s, \d+ s left", lines[0])
    assert "\r" not in done.stderr
    assert "Warning" not in done.stderr  # of Lightning
    assert len(done.stderr) < 3000


def test_a_run_on_tiles_resumes_exactly_and_its_model_knows_them(squares, tmp_path, caplog):
    given = {**SMALL, "epochs": 2, "schedule": "constant", "burn_in": 0, "precision": "fp32", "tile": "64x96"}
    with caplog.at_level(logging.INFO, "lookonce"):
        whole = train(squares, out=tmp_path, name="whole", **given)
    assert "tiles of 64 x 96 px, overlap 0.2: an epoch has 24 whole images and their 48 tiles" in caplog.text
    half = train(squares, out=tmp_path, name="half", **{**given, "epochs": 1})
    assert "tile: 64x96\n" in (half / "config.yaml").read_text()
    train(resume=replace_in_config(half, "epochs: 1", "epochs: 2"))
    states = [last_checkpoint(run) for run in (whole, half)]
    assert states[0]["seen"] == states[1]["seen"] == 2 * (24 + 48)
    for key, value in states[0]["current_model_state"].items():
        torch.testing.assert_close(states[1]["current_model_state"][key], value)
    assert Detector(whole, tile="auto").tiling.size == (64, 96)
    assert not list(whole.glob("*.u8"))
    model, val = load_model(whole), read_dataset(squares, "val")
    found, _ = detect_all(Detector(model, "torch", precision="fp32", tile="auto"), val)
    mean = score(val, found, RULES, bootstrap=0).mean_ap
    assert mean > 0
    assert best_of_training(whole) == pytest.approx(mean, abs=0.01)


def best_of_training(run):
    """The best mAP of the validations in training."""
    rows = list(csv.DictReader((run / "results.csv").open()))
    [name] = [name for name in rows[0] if "mAP" in name]
    return max(float(row[name]) for row in rows if row[name])


def test_auto_tiles_are_settled_from_the_boxes_and_work_with_cached_features(squares, tmp_path):
    given = {**SMALL, "epochs": 1, "tile": "auto", "freeze": "2", "features": "fp32"}
    run = train(squares, out=tmp_path, **given)
    side = load_model(run).training["boxes"]["small_side"]
    expected = round(64 * side / 32)
    assert load_model(run).training["recipe"]["tile"] == f"{expected}x{expected}"
    assert f"tile: {expected}x{expected}\n" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("tile", ["31x64", "wide", "64"])
def test_a_tile_that_cannot_be_is_refused(tile, squares, tmp_path):
    with pytest.raises(UserError, match=r"tile: .*; expected auto, or WIDTHxHEIGHT in pixels"):
        train(squares, out=tmp_path, tile=tile, **SMALL)
    assert not list(tmp_path.iterdir())
