"""Mirrors src/lookonce/training/features.py."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.network import DARKNET, Network
from lookonce.training.feature_cache import FeatureCache, backbone_key, digest_of, fill
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
def test_a_pass_that_broke_off_goes_on_where_it_stood(lost, tmp_path):
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
def test_a_damaged_slot_is_not_trained_on_and_is_computed_anew(what, tmp_path, caplog):
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
        with pytest.raises(UserError, match=r"features.bin: slot 1 is damaged; start again, and it is computed again"):
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


def test_a_cache_too_large_for_the_disk_is_told_with_the_numbers_before_it_is_begun(tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path / "c", ((1024, 13, 13),), "bf16")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5e9))
    cache.make_room(10_000)
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
        cut = network.split_index
        assert len([i for i in network.convolutions if int(i) < cut]) == frozen
        with torch.no_grad():
            found = network.forward_head(network.forward_backbone(images, split_index), cut)
            torch.testing.assert_close(found, network(images), rtol=0, atol=0)
    network.freeze(20)  # the passthrough is read beyond the cut
    assert len(network.reads(network.split_index)) == 2
