"""Mirrors src/lookonce/training/run.py."""

import csv
import logging
import os
import re
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lookonce import read_dataset, train
from lookonce.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.data.voc import write_annotation
from lookonce.errors import Interrupted, UserError
from lookonce.layers import Conv, MaxPool
from lookonce.model_file import load_model
from lookonce.training.module import LOSSES, Training
from sets import nano, write_squares

SMALL = {"network": "nano", "size": 64, "epochs": 2, "batch_size": 4, "anchors": 2}


def curve(run, name):
    with (run / "metrics.csv").open() as text:
        return [float(row[name]) for row in csv.DictReader(text) if row.get(name)]


def test_a_run_folder_holds_what_people_keep(run):
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "model.safetensors", "checkpoints", "metrics.csv", "report.html", "tensorboard"} <= names
    assert not names & {"canvas.u8", "canvas.state"}
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_run_learns(run):
    assert max(curve(run, "val/mAP")) > 0.8
    loss = curve(run, "loss_epoch")
    assert loss[-1] < loss[0] / 3


def test_the_model_is_the_best_and_says_how_it_came_about(run):
    model = load_model(run)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    name = "convolutions.0.conv.weight"
    assert torch.equal(model.network.state_dict()[name], best["state_dict"][f"network.{name}"])
    assert model.labels == ("blue", "red")
    assert all(0 < t < 1 for t in model.thresholds)
    assert model.seen == best["seen"] > 0
    assert model.training["recipe"]["loss"] == "region_ciou"


def test_one_seed_gives_one_result_and_deterministic_changes_nothing_on_a_cpu(squares, tmp_path):
    found = [load_model(train(squares, out=tmp_path, name=n, deterministic=n == "b", **SMALL)).network.state_dict()
             for n in ("a", "b")]  # fmt: skip
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_resumed_run_ends_as_an_uninterrupted_one(squares, tmp_path):
    whole = train(squares, out=tmp_path, name="whole", **{**SMALL, "epochs": 3, "schedule": "constant"})
    half = train(squares, out=tmp_path, name="half", **{**SMALL, "epochs": 2, "schedule": "constant"})
    config = half / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    train(resume=half)
    states = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (whole, half)]
    assert states[0]["seen"] == states[1]["seen"] == 72
    for key, value in states[0]["current_model_state"].items():
        torch.testing.assert_close(states[1]["current_model_state"][key], value)


@pytest.mark.parametrize("given", [
    {"loss": "keras_yolo2", "warm_up_images": 30, "optimizer": "sgd", "learning_rate": 1e-3, "schedule": "steps"},
    {"multi_scale": (64, 96), "ema": 0.0, "optimizer": "rmsprop", "learning_rate": 1e-4, "schedule": "cosine"},
    {"freeze": "all_but_last", "val_split": "none", "resize": "stretch", "optimizer": "adam", "gradient_clip": 0.0},
    {"labels": ("red",), "patience": 1, "min_delta": 2.0, "epochs": 9, "workers": 1, "anchors": 0},
    {"precision": "bf16"}, {"precision": "fp32"},  # whatever this machine would take by itself
], ids=["blog", "scales", "frozen", "subset", "bf16", "fp32"])  # fmt: skip
def test_every_way_to_train_ends_in_a_model(given, squares, tmp_path):
    run = train(squares, out=tmp_path, **{**SMALL, **given})
    model = load_model(run)
    assert model.resize == given.get("resize", "letterbox")
    assert model.labels == given.get("labels", ("blue", "red"))
    if "patience" in given:
        assert len(curve(run, "loss_epoch")) < 9
    if given.get("val_split") == "none":
        assert model.thresholds == ()


def test_pictures_of_extreme_shape_train_like_others(tmp_path):
    root = write_squares(tmp_path / "s", {"train": 4, "val": 2})
    for stem, size, box in (("train000", (1, 1), [0, 0, 1, 1]), ("train001", (20_000, 10), [500, 1, 9000, 9])):
        Image.new("RGB", size).save(root / "JPEGImages" / f"{stem}.png")
        write_annotation(root / "Annotations" / f"{stem}.xml", f"{stem}.png", size, np.array([box]), ["red"])
    found = read_dataset(root, "train")
    assert [p.kind for p in found.problems] == ["box without area"]  # 1 to 1, in VOC's own counting
    assert (train(root, out=tmp_path, **SMALL) / "model.safetensors").is_file()


def test_pictures_that_fail_at_their_first_decode_are_skipped_and_counted(tmp_path, caplog):
    root = write_squares(tmp_path / "s", {"train": 6, "val": 2})
    file = root / "JPEGImages" / "train001.png"
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(file)
    content = bytearray(file.read_bytes())
    content[9000:9100] = bytes(100)  # head and end are whole: only decoding finds it
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING, "lookonce"):
        train(root, out=tmp_path, **SMALL)
    assert "1 pictures could not be decoded and were skipped, the first: JPEGImages/train001.png" in caplog.text


@pytest.mark.parametrize("given, message", [
    ({"epochs": 0}, "epochs: 0"),
    ({"batch_size": 25}, "batch-size: 25; the training split has 24 pictures"),
    ({"labels": ("green",)}, "no object is a 'green'"),
    ({"train_split": "tarin"}, "no split 'tarin'"),
    ({"data": None}, "data: none given"),
    ({"freeze": "features"}, "18 convolutions of Darknet-19"),
    ({"resume": "nowhere"}, "nothing to resume"),
])  # fmt: skip
def test_wrong_input_is_told_before_anything_is_written(given, message, squares, tmp_path):
    from pathlib import Path

    if "resume" in given:
        given, data, small = {"resume": Path(given["resume"])}, None, {}
    else:
        data, small = given.get("data", squares), SMALL
    with pytest.raises(UserError, match=message) as error:
        train(data, out=tmp_path, **{**small, **{k: v for k, v in given.items() if k != "data"}})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("model.safetensors"))


def test_resume_takes_no_other_setting(run):
    with pytest.raises(UserError, match="give no other setting"):
        train(resume=run, epochs=5)


def test_a_run_is_not_overwritten(run, squares):
    with pytest.raises(UserError, match="holds a run already"):
        train(squares, out=run.parent, name=run.name, **SMALL)


def test_a_subset_that_drops_everything_is_told(tmp_path):
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
    assert not (tmp_path / "full" / "model.safetensors").exists()
    assert not (tmp_path / "full" / "canvas.u8").exists()


def test_a_place_without_write_permission_is_told(squares, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(squares, out=tmp_path / "file", name="x", **SMALL)


def test_a_full_disk_leaves_the_checkpoint_before(squares, tmp_path, monkeypatch):
    run = train(squares, out=tmp_path, name="r", **{**SMALL, "epochs": 1})
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lookonce.training.saving.os.fsync", full)
    with pytest.raises(UserError, match=r"last.ckpt: cannot be written: No space left on device.*--resume"):
        train(resume=run)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    monkeypatch.undo()
    assert torch.load(train(resume=run) / "checkpoints" / "last.ckpt", weights_only=True)["seen"] == 48


@pytest.mark.parametrize("step, workers, mosaic", [(8, 0, 0), (11, 0, 0), (13, 1, 0), (8, 0, 1)],
                         ids=["middle", "end of an epoch", "workers", "mosaics"])  # fmt: skip
def test_a_run_stopped_by_a_signal_and_resumed_ends_as_one_that_was_not(
    step, workers, mosaic, squares, tmp_path, monkeypatch
):
    given = {**SMALL, "epochs": 4, "workers": workers, "augment": {"mosaic": mosaic}}
    whole = train(squares, out=tmp_path, name="whole", **given)
    take = Training.training_step

    def interrupted(self, batch, number):
        if self.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, batch, number)

    monkeypatch.setattr(Training, "training_step", interrupted)
    with pytest.raises(Interrupted, match="go on with: lookonce train --resume") as stop:
        train(squares, out=tmp_path, name="cut", **given)
    assert stop.value.exit_code == 143
    monkeypatch.undo()
    states = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True)
              for r in (whole, train(resume=tmp_path / "cut"))]  # fmt: skip
    assert [state["seen"] for state in states] == [96, 96]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, states[1][part][key]) for key, value in states[0][part].items())
    assert curve(whole, "val/mAP") == curve(tmp_path / "cut", "val/mAP")
    assert curve(whole, "epoch") == curve(tmp_path / "cut", "epoch")


def test_a_batch_whose_loss_is_not_finite_is_kept(squares, tmp_path, monkeypatch):
    def broken(raw, targets, region, warm_up):
        return {"wh": raw.sum() * float("nan"), "total": raw.sum()}

    monkeypatch.setitem(LOSSES, "region_ciou", broken)
    with pytest.raises(UserError, match="loss term 'wh' is not a finite number on the pictures JPEGImages/train"):
        train(squares, out=tmp_path, name="r", **SMALL)
    kept = load_file(tmp_path / "r" / "bad_batch.safetensors")
    assert kept["canvas"].shape == (4, 3, 96, 96)
    assert len(kept["boxes"]) == len(kept["labels"])


def test_the_page_shows_how_the_run_stands(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Worst validation pictures" in page
    assert "some anchor fits" in page
    assert re.search(r"validation</th>\s*<td>torch [^,]+, fp32, c", page)
    assert "scores &gt; 0.005" in page
    assert "too few training objects of: blue" in page


@pytest.mark.parametrize("split", ["val", "none"])
def test_a_run_writes_into_its_own_folder_alone(split, squares, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = train(squares, out=tmp_path / "runs", val_split=split, **SMALL)
    assert not list((tmp_path / "here").iterdir())
    expected = {"last.ckpt", "best.ckpt"} if split == "val" else {"last.ckpt"}
    assert {p.name for p in (run / "checkpoints").iterdir()} == expected


def test_an_interrupt_before_the_first_step_says_what_to_do(squares, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lookonce.training.trunk.fill", stop)
    with pytest.raises(Interrupted, match=r"stopped before training began; no checkpoint yet: .*features computed"):
        train(squares, out=tmp_path, name="r", freeze="4", features="bf16", **SMALL)
    assert not (tmp_path / "r" / "canvas.u8").exists()


def test_a_cfg_is_trained_for_the_classes_and_anchors_of_the_data(squares, tmp_path):
    cfg = tmp_path / "own.cfg"
    cfg.write_text(write_cfg(Cfg(nano(7, ((1.0, 1.0),) * 3))))
    made = train(squares, out=tmp_path, name="r", network=str(cfg), size=64, epochs=1, batch_size=4, anchors=2)
    model = load_model(made)
    assert model.network.layers == nano(2, model.region.anchors)
    assert read_cfg((made / "network.cfg").read_text()).layers == model.network.layers
    assert read_cfg((made / "network.cfg").read_text()).width == 64
    kept = train(squares, out=tmp_path, name="k", network=str(cfg), size=64, epochs=1, batch_size=4, anchors=0)
    assert load_model(kept).region.anchors == ((1.0, 1.0),) * 3


def test_a_resumed_run_takes_its_own_cfg(squares, tmp_path):
    cfg = tmp_path / "own.cfg"
    cfg.write_text(write_cfg(Cfg(nano(2, ((1.0, 1.0),)))))
    made = train(squares, out=tmp_path, name="r", network=str(cfg), size=64, epochs=1, batch_size=4)
    cfg.unlink()
    config = made / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))
    assert load_model(train(resume=made)).seen == 48


@pytest.mark.parametrize("layers, message", [
    ((Conv(8), MaxPool(), *nano(2, ((1.0, 1.0),))[-2:]), r"cells of 2 px; training takes 32"),
    ((Conv(8), MaxPool()), r"own\.cfg: ends in MaxPool; expected a convolution and a \[region\]"),
    (None, r"own\.cfg: cannot be read"),
])  # fmt: skip
def test_a_cfg_that_cannot_be_trained_is_told(squares, tmp_path, layers, message):
    cfg = tmp_path / "own.cfg"
    if layers:
        cfg.write_text(write_cfg(Cfg(layers)))
    with pytest.raises(UserError, match=message):
        train(squares, out=tmp_path, network=str(cfg), size=64, epochs=1)
