"""Mirrors src/lookonce/training/backbone.py: training on kept outputs against training on images."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce import Network, read_dataset, train
from lookonce.commands.cache import cache
from lookonce.data.augment import Augmentation
from lookonce.errors import UserError
from lookonce.model.model_file import load_model
from lookonce.training.config import RunConfig
from lookonce.training.feature_cache import CachedImages, FeatureCache, FrozenBackbone
from lookonce.training.recipes import Settings
from lookonce.training.step import Training
from lookonce.training.validation import Inputs
from sets import nano, write_squares

SMALL = {"network": "nano", "size": 64, "epochs": 3, "batch_size": 4, "anchors": 2, "freeze": "4", "ema": 0.0,
         "precision": "fp32"}  # fmt: skip


def losses(monkeypatch, *args, **given):
    """Of every step, and the run folder."""
    found, before = [], Training._report

    def report(self, terms, images):
        found.append(float(terms["total"].detach()))
        before(self, terms, images)

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


def test_kept_variants_are_the_augmented_images_of_the_first_epochs(squares, tmp_path, monkeypatch):
    straight, _ = losses(monkeypatch, squares, out=tmp_path, name="a", **{**SMALL, "epochs": 2})
    cached, _ = losses(monkeypatch, squares, out=tmp_path, name="b", features="fp32", variants=2,
                       **{**SMALL, "epochs": 2})  # fmt: skip
    torch.testing.assert_close(torch.tensor(cached), torch.tensor(straight), rtol=1e-5, atol=1e-6)


def test_a_second_run_computes_nothing_anew_wherever_it_lies(squares, tmp_path, monkeypatch):
    train(squares, out=tmp_path / "a", features="bf16", **SMALL)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["squares-1"]
    assert "features of the first" in str(cache())
    monkeypatch.setattr("lookonce.training.feature_cache.FeatureCache.add", None)
    assert (train(squares, out=tmp_path / "b", features="bf16", **SMALL) / "model.safetensors").is_file()


def test_runs_at_once_compute_each_image_once_and_read_their_own(squares, tmp_path, monkeypatch):
    """Three threads on one cache, two of them with the same images; each then reads what it would compute alone."""
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    other = write_squares(tmp_path / "other", {"train": 20}, seed=9)
    torch.manual_seed(0)
    module = Training(Network(nano(2, ((1.0, 1.0), (1.6, 1.6)))), Settings(freeze="4"), 0)
    module.network.eval()
    how = Settings(network="nano", size=64, freeze="4", features="fp32", resize="stretch",
                   augment=Augmentation.none())  # fmt: skip
    plan = RunConfig(
        str(squares), None, "train", "val", "drop", False, 0, 0, "cpu", "fp32", False, 5.0, None, how, False
    )
    added, before = [], FeatureCache.add

    def add(self, digest, outputs):
        added.append(digest)
        before(self, digest, outputs)

    monkeypatch.setattr(FeatureCache, "add", add)

    def fill(root):
        inputs, backbone = Inputs(read_dataset(root, "train"), (64, 64), "stretch"), FrozenBackbone(module, plan)
        cached = backbone.validation(inputs)
        outputs = [cached[n].outputs for n in range(len(inputs))]
        backbone.close()
        return inputs, outputs

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(fill, (squares, other, squares)))
    assert len(added) == len(set(added)) == 24 + 20
    for inputs, outputs in found:
        for n, output in enumerate(outputs):
            with torch.no_grad():
                expected = module.network.forward_backbone(inputs.image(n)[None], module.network.split_index)
            torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_features_in_use_are_not_removed_and_go_afterwards(squares, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    seen, before = [], CachedImages.__getitem__

    def read(self, place):
        if not seen:
            seen.append(str(cache(clear=True)))
        return before(self, place)

    monkeypatch.setattr(CachedImages, "__getitem__", read)
    train(squares, out=tmp_path, features="bf16", **{**SMALL, "epochs": 1})
    assert "0 entries removed" in seen[0]
    assert "1 entry, in use" in seen[0]
    assert "1 entry removed" in str(cache(clear=True))


def test_where_the_cache_cannot_be_written_features_last_as_long_as_the_run(squares, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "file" / "cache"))
    caplog.set_level("INFO", "lookonce")
    run = train(squares, out=tmp_path / "runs", features="bf16", **{**SMALL, "epochs": 1})
    assert (run / "model.safetensors").is_file()
    assert caplog.text.count("so features are kept for this run alone") == 1


@pytest.mark.parametrize("given, said", [
    ({"features": "bf16", "augment": Augmentation()}, "keep K augmented variants of an image with --variants K"),
    ({"features": "bf16", "freeze": "none"}, "frozen layers: give --freeze as well"),
    ({"features": "bf16", "multi_scale": (64, 96)}, "a single input size"),
    ({"variants": 3}, "0 without --features"),
    ({"features": "int8"}, "features: 'int8'"),
])  # fmt: skip
def test_what_cannot_go_together_is_told_before_anything_is_computed(given, said, squares, tmp_path):
    with pytest.raises(UserError, match=said):
        train(squares, out=tmp_path, **{**SMALL, **given})
    assert not list(tmp_path.iterdir())


def test_an_image_that_fails_in_the_pass_is_left_out_in_every_epoch_and_every_run(tmp_path):
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
