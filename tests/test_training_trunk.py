"""Mirrors src/lookonce/training/trunk.py: training on kept outputs against training on pictures."""

import pytest
import torch

from lookonce import train
from lookonce.data.warp import Augmentation
from lookonce.errors import UserError
from lookonce.training.module import Training

SMALL = {"network": "nano", "size": 64, "epochs": 3, "batch_size": 4, "anchors": 2, "freeze": "4", "ema": 0.0}


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
