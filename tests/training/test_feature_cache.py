"""Tests of lookonce.training.feature_cache."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce import read_dataset, train
from lookonce.commands.cache import cache
from lookonce.data.augmentation import Augmentation
from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.model_file import load_model
from lookonce.model.network import DARKNET, Network
from lookonce.training.config import RunConfig
from lookonce.training.feature_cache import CachedImages, FeatureCache, FrozenBackbone, backbone_key, digest_of, fill
from lookonce.training.recipes import Settings
from lookonce.training.step import Training
from lookonce.training.validation import Inputs
from sets import nano, write_squares

SHAPES = ((2, 3, 3), (4, 1, 1))
ANCHORS = ((1.0, 1.0), (1.6, 1.6))


def outputs(seed):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for shape in SHAPES]


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_outputs_come_back_as_they_were_put_in_also_later(kind, tmp_path):
    cache = FeatureCache(tmp_path / "c", SHAPES, kind)
    for n in range(3):
        cache.add(bytes([n]) * 16, outputs(n))
    again = FeatureCache(tmp_path / "c", SHAPES, kind)
    assert again.missing([bytes([n]) * 16 for n in (2, 7, 0)]) == [1]
    for found, given in zip(again.read(bytes([1]) * 16), outputs(1), strict=True):
        assert torch.equal(found, given.to(found.dtype))
        torch.testing.assert_close(found.float(), given, rtol=0 if kind == "fp32" else 2**-8, atol=0)


@pytest.mark.parametrize("lost", [1, 19])
def test_an_interrupted_pass_continues_where_it_stopped(lost, tmp_path):
    cache = FeatureCache(tmp_path / "c", SHAPES, "fp32")
    for n in range(3):
        cache.add(bytes([n]) * 16, outputs(n))
    content = cache.index_file.read_bytes()
    cache.index_file.write_bytes(content[:-lost])
    again = FeatureCache(tmp_path / "c", SHAPES, "fp32")
    assert again.missing([bytes([n]) * 16 for n in range(3)]) == [2]
    again.add(bytes([2]) * 16, outputs(2))
    assert again.index_file.read_bytes() == content


@pytest.mark.parametrize("what", ["content", "digest"])
def test_a_damaged_slot_is_not_trained_on_and_is_computed_again(what, tmp_path, caplog):
    cache = FeatureCache(tmp_path / "c", SHAPES, "fp32")
    keys = [bytes([n]) * 16 for n in range(3)]
    for n, key in enumerate(keys):
        cache.add(key, outputs(n))
    cache.read(keys[1])  # that it was right once says nothing of the next time
    file, place = (cache.file, cache.slot_bytes + 5) if what == "content" else (cache.index_file, 20 + 3)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    if what == "content":
        with pytest.raises(UserError, match=r"features.bin: slot 1 is damaged; start again to compute it again"):
            cache.read(keys[1])
    again = FeatureCache(tmp_path / "c", SHAPES, "fp32")
    assert again.missing(keys) == [1]
    again.add(keys[1], outputs(1))
    for cache in (again, FeatureCache(tmp_path / "c", SHAPES, "fp32")):
        assert cache.missing(keys) == []
        for n, key in enumerate(keys):
            assert all(torch.equal(a, b) for a, b in zip(cache.read(key), outputs(n), strict=True))


def test_what_another_run_wrote_over_a_slot_is_not_taken_for_ones_own(tmp_path):
    """Two runs without a lock between them, which both add to slot 0."""
    first, second = (FeatureCache(tmp_path / "c", SHAPES, "fp32") for _ in range(2))
    first.add(b"a" * 16, outputs(1))
    first.read(b"a" * 16)
    second.add(b"b" * 16, outputs(2))
    with pytest.raises(UserError, match="slot 0 is damaged"):
        first.read(b"a" * 16)
    assert all(torch.equal(a, b) for a, b in zip(second.read(b"b" * 16), outputs(2), strict=True))


def test_a_cache_too_large_for_the_disk_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "c", ((1024, 13, 13),), "bf16")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5e9))
    cache.check_disk(10_000)
    with pytest.raises(UserError, match=r"17125 images need 5.9 GB \(0.35 MB each\), and 5.0 GB are free"):
        fill(cache, [n.to_bytes(16, "big") for n in range(17_125)], None, None, "images")
    assert cache.file.stat().st_size == 0


def test_only_what_is_missing_is_computed_and_an_image_that_fails_is_left_out(tmp_path):
    cache = FeatureCache(tmp_path / "c", ((3, 4, 4),), "fp32")
    asked = []

    def image(place):
        asked.append(place)
        return None if place == 2 else torch.full((3, 4, 4), float(place))

    digests = [bytes([n]) * 16 for n in (0, 1, 2, 1, 4)]  # 1 and 3 are one image under two names
    fill(cache, digests, lambda images: (images,), image, "images")
    assert asked == [0, 1, 2, 3, 4]
    assert digests[2] == b""
    assert cache.read(digests[3])[0].unique().tolist() == [1.0]
    assert len(cache.records) == 3
    fill(cache, digests, lambda images: (images,), image, "images")
    assert len(asked) == 5


def test_a_cache_belongs_to_one_trunk_and_one_way_of_seeing():
    torch.manual_seed(0)
    network = Network(nano(2, ANCHORS))
    key = backbone_key(network, 8, "416")
    assert backbone_key(network, 8, "416") == key
    assert len({key, backbone_key(network, 8, "608"), backbone_key(network, 6, "416")}) == 3
    with torch.no_grad():
        network.convolution_list()[-1].conv.weight.add_(1)
    assert backbone_key(network, 8, "416") == key  # beyond the cut
    network.convolution_list()[0].norm.sigma = DARKNET
    other = backbone_key(network, 8, "416")
    network.convolution_list()[0].norm.running_var.add_(1e-3)
    assert len({key, other, backbone_key(network, 8, "416")}) == 3


def test_an_image_is_known_by_its_content(tmp_path):
    dataset = read_dataset(write_squares(tmp_path / "s", {"train": 3}))
    first = digest_of(dataset, 0, "seen so")
    assert first == digest_of(dataset, 0, "seen so")
    assert len({first, digest_of(dataset, 1, "seen so"), digest_of(dataset, 0, "seen else")}) == 3
    dataset.records[0].path.unlink()
    assert digest_of(dataset, 0, "seen so") == b""


def test_a_network_cut_in_two_is_the_network():
    torch.manual_seed(0)
    network = Network(zoo.yolov2(2, ANCHORS)).eval()
    images = torch.rand(1, 3, 64, 64)
    for frozen in (1, 12, 13, 14, 18, 21, 22):
        network.freeze(frozen)
        split_index = network.split_index
        assert len([i for i in network.convolutions if int(i) < split_index]) == frozen
        with torch.no_grad():
            found = network.forward_head(network.forward_backbone(images, split_index), split_index)
            torch.testing.assert_close(found, network(images), rtol=0, atol=0)
    network.freeze(20)  # the passthrough is read beyond the split_index
    assert len(network.reads(network.split_index)) == 2


SMALL = {"network": "nano", "size": 64, "epochs": 2, "batch_size": 4, "anchors": 2, "freeze": "4", "ema": 0.0,
         "precision": "fp32", "keep_checkpoints": True}  # fmt: skip


def losses(monkeypatch, *args, **given):
    """Of every step, and the run folder."""
    found, before = [], Training.loss_terms

    def loss_terms(self, raws, inputs):
        terms = before(self, raws, inputs)
        if self.training:
            found.append(float(terms["total"].detach()))
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(Training, "loss_terms", loss_terms)
        return found, train(*args, **given)


def test_losses_with_and_without_the_cache_agree_step_by_step(squares, tmp_path, monkeypatch):
    plain = {**SMALL, "augment": Augmentation.none()}
    straight, _ = losses(monkeypatch, squares, out=tmp_path, name="a", **plain)
    cached, run = losses(monkeypatch, squares, out=tmp_path, name="b", features="fp32", **SMALL)
    assert len(cached) == 12
    torch.testing.assert_close(torch.tensor(cached), torch.tensor(straight), rtol=1e-5, atol=1e-6)
    assert (run / "model.safetensors").is_file()
    half, _ = losses(monkeypatch, squares, out=tmp_path, name="c", features="bf16", **SMALL)
    torch.testing.assert_close(torch.tensor(half), torch.tensor(straight), rtol=2e-2, atol=1e-3)


def test_kept_variants_are_the_augmented_images_of_the_first_epochs(squares, tmp_path, monkeypatch):
    straight, _ = losses(monkeypatch, squares, out=tmp_path, name="a", **SMALL)
    cached, _ = losses(monkeypatch, squares, out=tmp_path, name="b", features="fp32", variants=2, **SMALL)
    torch.testing.assert_close(torch.tensor(cached), torch.tensor(straight), rtol=1e-5, atol=1e-6)


def test_a_second_run_computes_no_features(squares, tmp_path, monkeypatch):
    given = {**SMALL, "features": "bf16", "epochs": 1}
    train(squares, out=tmp_path / "a", **given)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["squares-1"]
    assert "features of the first" in str(cache())
    monkeypatch.setattr("lookonce.training.feature_cache.FeatureCache.add", None)
    assert (
        train(squares, out=tmp_path / "b", features="bf16", **{**SMALL, "epochs": 1}) / "model.safetensors"
    ).is_file()


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
    assert caplog.text.count("so features are kept for this run only") == 1


@pytest.mark.parametrize("given, said", [
    ({"features": "bf16", "augment": Augmentation()}, "keep K augmented variants of an image with --variants K"),
    ({"features": "bf16", "freeze": "none"}, "frozen layers: give --freeze as well"),
    ({"features": "bf16", "multi_scale": (64, 96)}, "a single input size"),
    ({"variants": 3}, "0 without --features"),
    ({"features": "int8"}, "features: 'int8'"),
])  # fmt: skip
def test_options_that_exclude_each_other_are_refused_before_anything_is_computed(given, said, squares, tmp_path):
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
        assert load_model(run).seen == 2 * 5


def test_a_finished_run_that_is_resumed_is_finished_again(squares, tmp_path):
    run = train(squares, out=tmp_path, name="a", features="bf16", **{**SMALL, "epochs": None, "steps": 2})
    (run / "model.safetensors").unlink()
    assert load_model(train(resume=run)).seen == 8
