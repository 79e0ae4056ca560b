"""Mirrors src/lookonce/training/trunk.py: training on kept outputs against training on pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce import train
from lookonce.data.warp import Augmentation
from lookonce.errors import UserError
from lookonce.model_file import load_model
from lookonce.training.module import Training
from sets import write_squares

SMALL = {"network": "nano", "size": 64, "epochs": 3, "batch_size": 4, "anchors": 2, "freeze": "4", "ema": 0.0,
         "precision": "fp32"}  # fmt: skip


def losses(monkeypatch, *args, **given):
    """Of every step, and the run folder."""
    found, before = [], Training._report

    def report(self, terms, pictures):
        found.append(float(terms["total"].detach()))
        before(self, terms, pictures)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_report", report)
        return found, train(*args, **given)


def test_losses_with_and_without_the_cache_agree_step_by_step(squares, tmp_path, monkeypatch):
    plain = {**SMALL, "augment": Augmentation.none()}
    straight, _ = losses(monkeypatch, squares, out=tmp_path, name="a", **plain)
    cached, run = losses(monkeypatch, squares, out=tmp_path, name="b", features="fp32", **SMALL)
    assert len(cached) == 18
    torch.testing.assert_close(torch.tensor(cached), torch.tensor(straight), rtol=1e-5, atol=1e-6)
    assert (run / "model.safetensors").is_file()
    half, _ = losses(monkeypatch, squares, out=tmp_path, name="c", features="bf16", **SMALL)
    torch.testing.assert_close(torch.tensor(half), torch.tensor(straight), rtol=2e-2, atol=1e-3)


def test_kept_variants_are_the_augmented_pictures_of_the_first_epochs(squares, tmp_path, monkeypatch):
    straight, _ = losses(monkeypatch, squares, out=tmp_path, name="a", **{**SMALL, "epochs": 2})
    cached, _ = losses(monkeypatch, squares, out=tmp_path, name="b", features="fp32", variants=2,
                       **{**SMALL, "epochs": 2})  # fmt: skip
    torch.testing.assert_close(torch.tensor(cached), torch.tensor(straight), rtol=1e-5, atol=1e-6)


def test_a_second_run_computes_nothing_anew(squares, tmp_path, monkeypatch):
    train(squares, out=tmp_path, name="a", features="bf16", **SMALL)
    monkeypatch.setattr("lookonce.training.features.FeatureCache.add", None)
    assert (train(squares, out=tmp_path, name="b", features="bf16", **SMALL) / "model.safetensors").is_file()


@pytest.mark.parametrize("given, said", [
    ({"features": "bf16", "augment": Augmentation()}, "keep K augmented variants of a picture with --variants K"),
    ({"features": "bf16", "freeze": "none"}, "a frozen trunk beside it"),
    ({"features": "bf16", "multi_scale": (64, 96)}, "one input size"),
    ({"variants": 3}, "0 without --features"),
    ({"features": "int8"}, "features: 'int8'"),
])  # fmt: skip
def test_what_cannot_go_together_is_told_before_anything_is_computed(given, said, squares, tmp_path):
    with pytest.raises(UserError, match=said):
        train(squares, out=tmp_path, **{**SMALL, **given})
    assert not list(tmp_path.iterdir())


def test_a_picture_that_fails_in_the_pass_is_left_out_in_every_epoch_and_every_run(tmp_path):
    root = write_squares(tmp_path / "s", {"train": 6, "val": 3})
    file = root / "JPEGImages" / "train001.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[9000:9100] = bytes(100)  # head and end are whole: only decoding finds it
    file.write_bytes(content)
    for name in ("b", "c"):
        run = train(root, out=tmp_path, name=name, features="bf16", val_split="none", **SMALL)
        assert load_model(run).seen == 3 * 5


def test_a_finished_run_that_is_resumed_is_finished_again(squares, tmp_path):
    run = train(squares, out=tmp_path, name="a", features="bf16", **SMALL)
    (run / "model.safetensors").unlink()
    assert (train(resume=run) / "model.safetensors").is_file()
