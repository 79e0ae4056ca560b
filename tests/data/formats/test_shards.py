"""Tests of lookonce.data.formats.shards. Oracle: the data set that was converted; tars that are written by hand."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from lookonce.commands.check import check
from lookonce.commands.convert import convert
from lookonce.data import tars
from lookonce.data.formats import shards
from lookonce.data.images import load_rgb
from lookonce.data.read import check_images, read_dataset, read_whole
from lookonce.data.tars import index_file
from lookonce.errors import UserError


@pytest.fixture(scope="module")
def packed(squares, tmp_path_factory):
    """The squares in tars of about four images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 1000)
        convert(squares, tmp_path_factory.mktemp("packed") / "squares", format="shards")
    return next(tmp_path_factory.getbasetemp().glob("packed*/squares"))


def png(value=7, size=(32, 24)):
    content = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(content, "PNG")
    return content.getvalue()


def write_tar(path, **files):
    """A tar by hand; `a__json` is a.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            content = json.dumps(content).encode() if isinstance(content, dict) else content
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


LABELS = {"width": 32, "height": 24, "objects": [{"label": "red", "box": [1.5, 2, 10, 20]}]}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_images_boxes_and_order_of_a_split_are_those_of_the_files(packed, squares, split):
    was, now = read_dataset(squares, split), read_dataset(packed, split)
    assert now.labels == was.labels
    for a, b in zip(was.records, now.records, strict=True):
        assert (a.size, a.path.stem) == (b.size, b.path.stem)
        assert np.array_equal(a.boxes, b.boxes)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(load_rgb(a.path), load_rgb(b.path))
    assert len(list(packed.glob("train-*.tar"))) > 2


def test_without_indices_and_description_the_tars_say_the_same(packed, tmp_path):
    for tar in packed.glob("*.tar"):
        (tmp_path / tar.name).write_bytes(tar.read_bytes())
    was, now = read_dataset(packed, "train"), read_dataset(tmp_path, "train")
    assert now.paths.tolist() == was.paths.tolist()
    assert np.array_equal(now.boxes, was.boxes)
    assert sorted(now.labels) == sorted(was.labels)


def test_the_whole_set_is_checked_and_converted_back(packed, squares, tmp_path):
    whole = read_whole(packed)
    assert (whole.found.format, whole.brought) == ("shards", ("test", "train", "val"))
    assert len(check_images(whole.dataset)) == 40
    assert "40 images" in str(check(packed))
    convert(packed, tmp_path / "voc", format="voc")
    for split in ("train", "val"):
        was, back = read_dataset(squares, split), read_dataset(tmp_path / "voc", split)
        assert np.array_equal(was.boxes, back.boxes)
        assert np.array_equal(load_rgb(was.records[0].path), load_rgb(back.records[0].path))


def test_an_index_gives_the_place_of_each_image(packed):
    for tar in packed.glob("*.tar"):
        first, *entries = map(json.loads, index_file(tar).read_text().splitlines())
        assert first == {"tar": tar.name, "bytes": tar.stat().st_size}
        with tarfile.open(tar) as opened:
            for entry in entries:
                member = opened.getmember(entry["image"])
                assert (member.offset_data, member.size) == (entry["offset"], entry["size"])


def test_training_computes_the_same_weights_as_from_files(packed, squares, tmp_path):
    from lookonce import train
    from lookonce.model.model_file import load_model

    kept = []
    for data, name in ((squares, "files"), (packed, "tars")):
        run = train(data, network="nano", size=96, steps=9, batch_size=4, anchors=2, out=tmp_path, name=name)
        kept.append(load_model(run).network.state_dict())
    assert all((kept[0][name] == kept[1][name]).all() for name in kept[0])


def test_difficult_objects_crowds_and_areas_come_back(tmp_path):
    objects = [{"label": "red", "box": [1, 2, 10, 20], "difficult": True},
               {"label": "red", "box": [3, 2, 10, 20], "crowd": True, "area": 5.5}]  # fmt: skip
    write_tar(tmp_path / "x.tar", a__png=png(), a__json={**LABELS, "objects": objects})
    convert(tmp_path, tmp_path.parent / f"{tmp_path.name}-again", format="shards")
    for place in (tmp_path, tmp_path.parent / f"{tmp_path.name}-again"):
        found = read_dataset(place)
        assert found.difficult.tolist() == [True, True]
        assert found.crowd.tolist() == [False, True]
        assert found.area.tolist() == [0.0, 5.5]


def test_overlapping_splits_write_each_image_once(tmp_path):
    groups = shards._groups(5, {"train": np.array([3, 0]), "trainval": np.array([0, 1, 3])})
    assert groups == {"train+trainval": [3, 0], "trainval": [1], "other": [2, 4]}
    assert shards._groups(2, {}) == {"images": [0, 1]}


def test_names_have_one_dot(tmp_path):
    assert shards._keys(["a.b.jpg", "a_b.jpg", "c.jpg"]) == ["a_b.jpg", "a_b_.jpg", "c.jpg"]


def test_problems_are_noted_and_name_tar_and_member(tmp_path):
    write_tar(tmp_path / "x-0.tar", a__png=png(), b__png=png(), b__json=b"{", c__png=png(),
              c__json={**LABELS, "width": 0}, d__png=png(),
              d__json={**LABELS, "objects": [{"label": "red", "box": [5, 5, 5, 9]}]},
              e__png=png(), e__json=LABELS, f__png=b"no image", f__json=LABELS)  # fmt: skip
    found = read_dataset(tmp_path)
    assert [path.rpartition("/")[2] for path in found.paths] == ["d.png", "e.png", "f.png"]
    assert [(problem.kind, problem.place) for problem in found.problems] == [
        ("image without annotation", "x-0.tar: a.png"), ("annotation unreadable", "x-0.tar: b.json"),
        ("annotation unreadable", "x-0.tar: c.png"), ("box with no area", "x-0.tar: d.png"),
    ]  # fmt: skip
    assert [path.rpartition("/")[2] for path in check_images(found).paths] == ["d.png", "e.png"]


@pytest.mark.parametrize("name, content, message", [
    ("shards.json", b"{", "shards.json: "),
    ("shards.json", b'{"labels": 3}', "shards.json: "),
    ("x-0.tar", b"\x1f\x8b nothing", "a compressed tar"),
    ("x-0.tar", b"no tar at all" * 99, "damaged or not a tar"),
])  # fmt: skip
def test_damaged_files_are_one_line(tmp_path, name, content, message):
    write_tar(tmp_path / "x-0.tar", a__png=png(), a__json=LABELS)
    (tmp_path / "shards.json").write_text('{"labels": ["red"]}')
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_dataset(tmp_path)


def test_an_index_of_another_tar_does_not_count_and_a_damaged_one_is_told(tmp_path):
    tar = write_tar(tmp_path / "x.tar", a__png=png(), a__json=LABELS)
    index = index_file(tar)
    index.write_text(json.dumps({"tar": "x.tar", "bytes": 3}) + '\n{"image": "zzz"}\n')
    assert len(read_dataset(tmp_path)) == 1
    index.write_text(json.dumps({"tar": "x.tar", "bytes": tar.stat().st_size}) + '\n{"image": "zzz"}\n')
    with pytest.raises(UserError, match="line 2 of its index is damaged"):
        read_dataset(tmp_path)


def test_a_tar_of_images_alone_is_no_data_set(tmp_path):
    write_tar(tmp_path / "x.tar", a__png=png())
    assert shards.find_shards(tmp_path) == []


def test_shards_at_an_address_are_read_image_by_image_and_kept_within_the_bound(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    address = f"file://{packed}"
    here, there = read_dataset(packed, "val"), read_dataset(address, "val")
    assert there.paths.tolist() == here.paths.tolist()
    assert np.array_equal(there.boxes, here.boxes)
    sizes = []
    fetched = tars.read_remote
    monkeypatch.setattr(tars, "read_remote", lambda *words: sizes.append(words[3]) or fetched(*words))
    for _ in range(2):
        for a, b in zip(here.records, there.records, strict=True):
            assert np.array_equal(load_rgb(a.path), load_rgb(b.path))
    assert sizes == [len(tars.read_bytes(record.path)) for record in here.records]  # once each, and no whole tar
    assert not list((tmp_path / "cache").rglob("*.tar"))
    total = sum(tar.stat().st_size for tar in packed.glob("*.tar"))
    monkeypatch.setattr(tars, "MOST_KEPT", 0.5 * total)
    tars._mirror.cache_clear()
    whole = read_dataset(f"{address}/")
    for file in (tmp_path / "cache").rglob("kept/*/*"):
        file.unlink()
    for record in whole.records:
        load_rgb(record.path)
    kept = len(list((tmp_path / "cache").rglob("kept/*/*")))
    assert 8 <= kept <= 32  # half of 40
    tars._mirror.cache_clear()


def test_an_address_without_indices_is_read_through_its_tars_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    write_tar(tmp_path / "set" / "train-0.tar", a__png=png(9), a__json=LABELS)
    write_tar(tmp_path / "set" / "val-0.tar", b__png=png(5), b__json=LABELS)
    found = read_dataset(f"file://{tmp_path}/set", "train")
    assert [path.rpartition("/")[2] for path in found.paths] == ["a.png"]
    assert load_rgb(found.records[0].path)[0, 0, 0] == 9
    assert not list((tmp_path / "cache").rglob("*.tar"))


def test_an_address_without_tars_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no tars; expected what 'lookonce convert DATA OUT --format shards' writes"):
        read_dataset(f"file://{tmp_path}/empty")
