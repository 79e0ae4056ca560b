"""Tests of lookonce.commands.detect."""

import json
import shutil

import pytest
from PIL import Image

from lookonce.commands.detect import LOOKED_AT, _free_name, _remove_earlier, detect
from lookonce.errors import Interrupted, UserError
from lookonce.inference.detector import Detector


def test_images_become_drawn_images_and_json(run, squares, tmp_path):
    files = sorted((squares / "JPEGImages").glob("test*.png"))
    summary = detect(run, [str(squares / "JPEGImages" / "test*.png")], out=tmp_path)
    said = json.loads((tmp_path / "detections.json").read_text())
    assert [entry["file"] for entry in said["images"]] == [str(f) for f in files]
    assert sum(len(entry["detections"]) for entry in said["images"]) == summary.detections > 0
    assert set(said["images"][0]["detections"][0]) == {"label", "score", "box"}
    assert Image.open(tmp_path / "test000.jpg").size == (96, 96)
    assert len(list(tmp_path.iterdir())) == 9
    assert "detections on 8 images" in str(summary)


def test_one_bad_image_is_skipped_and_counted(run, squares, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_text("text")
    (tmp_path / "in" / "b.png").write_bytes((squares / "JPEGImages" / "test000.png").read_bytes())
    (tmp_path / "in" / "sub").mkdir()
    (tmp_path / "in" / "sub" / "b.png").write_bytes((squares / "JPEGImages" / "test001.png").read_bytes())
    summary = detect(run, [str(tmp_path / "in")], out=tmp_path / "out")
    assert (summary.images, summary.skipped) == (2, 1)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"detections.json", "b.jpg", "b-2.jpg"}


def test_a_stop_keeps_what_was_found(run, squares, tmp_path, monkeypatch):
    def stops(self, paths):
        for n, one in enumerate(whole(self, paths)):
            if n == 3:
                raise KeyboardInterrupt
            yield one

    whole = Detector.detect_files
    monkeypatch.setattr(Detector, "detect_files", stops)
    with pytest.raises(Interrupted, match=r"stopped: \d+ detections on 3 images: .*detections\.json, of 8") as stopped:
        detect(run, [str(squares / "JPEGImages" / "test*.png")], out=tmp_path)
    assert stopped.value.exit_code == 130
    assert len(json.loads((tmp_path / "detections.json").read_text())["images"]) == 3
    assert len(list(tmp_path.glob("*.jpg"))) == 3


def test_a_stop_before_the_first_image_leaves_nothing(run, squares, tmp_path, monkeypatch):
    def stops(self, paths):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Detector, "detect_files", stops)
    with pytest.raises(Interrupted, match="before the first image"):
        detect(run, [str(squares / "JPEGImages" / "test*.png")], out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_when_nothing_passes_the_highest_score_is_told(run, squares, tmp_path):
    file = str(squares / "JPEGImages" / "test000.png")
    summary = detect(run, [file], out=tmp_path, threshold=1.0, save_images=False)
    assert summary.detections == 0
    assert summary.highest == Detector(run)(file).scores[0] > 0.3
    assert f"highest score is {summary.highest:.3f}" in str(summary)
    assert [p.name for p in tmp_path.iterdir()] == ["detections.json"]


def test_of_many_images_the_first_are_looked_at_for_scores_that_did_not_pass(run, squares, tmp_path):
    (tmp_path / "a.png").write_text("text")
    Image.new("RGB", (96, 96)).save(tmp_path / "b.png")
    for n in range(LOOKED_AT):
        shutil.copy(tmp_path / "b.png", tmp_path / f"c{n:02}.png")
    shutil.copy(squares / "JPEGImages" / "test000.png", tmp_path / "d.png")
    summary = detect(run, [str(tmp_path)], out=tmp_path / "out", threshold=1.0, save_images=False)
    assert f"highest score on the first {LOOKED_AT} images is {summary.highest:.3f}" in str(summary)
    assert summary.highest < 0.3


def test_nothing_to_read_is_told_and_leaves_no_file(run, tmp_path):
    with pytest.raises(UserError, match="no images there"):
        detect(run, [str(tmp_path / "*.jpg")], out=tmp_path / "out")
    (tmp_path / "a.jpg").write_text("text")
    with pytest.raises(UserError, match="none of the 1 images could be read"):
        detect(run, [str(tmp_path)], out=tmp_path / "out")
    assert not (tmp_path / "out" / "detections.json").exists()


def test_an_image_decoded_at_a_fraction_is_drawn_whole(run, squares, tmp_path):
    image = Image.open(squares / "JPEGImages" / "test000.png").convert("RGB")
    image.resize((image.width * 8, image.height * 8)).save(tmp_path / "large.jpg")
    detect(run, [str(tmp_path / "large.jpg")], out=tmp_path / "out")
    assert Image.open(tmp_path / "out" / "large.jpg").size == (image.width * 8, image.height * 8)


def test_an_image_of_the_users_is_never_replaced(run, squares, tmp_path):
    photo = tmp_path / "photos" / "a.jpg"
    photo.parent.mkdir()
    Image.open(squares / "JPEGImages" / "test000.png").convert("RGB").save(photo)
    (tmp_path / "photos" / "b.jpg").write_bytes(photo.read_bytes())
    before = photo.read_bytes()
    with pytest.raises(UserError, match="photos: holds files already; give another name, or --overwrite"):
        detect(run, [str(photo)], out=tmp_path / "photos")
    assert {p.name for p in photo.parent.iterdir()} == {"a.jpg", "b.jpg"}
    detect(run, [str(photo.parent)], out=tmp_path / "photos", overwrite=True)
    assert photo.read_bytes() == (tmp_path / "photos" / "b.jpg").read_bytes() == before
    names = {"a.jpg", "b.jpg", "a-2.jpg", "b-2.jpg", "detections.json"}
    assert {p.name for p in photo.parent.iterdir()} == names
    detect(run, [str(photo)], out=tmp_path / "photos", overwrite=True)  # its own earlier images go, the photos stay
    assert {p.name for p in photo.parent.iterdir()} == names - {"b-2.jpg"}
    assert photo.read_bytes() == before


def test_overwrite_removes_what_version_0_1_wrote(run, squares, tmp_path):
    photo = squares / "JPEGImages" / "test000.png"
    (tmp_path / "old.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "mine.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "detections.json").write_text(json.dumps({"pictures": [{"file": "old.png", "drawn": "old.jpg"}]}))
    detect(run, [str(photo)], out=tmp_path, overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"mine.jpg", "test000.jpg", "detections.json"}


def test_without_a_name_each_detect_has_a_folder_of_its_own(run, squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("detections", "detections-2"):
        summary = detect(run, [str(squares / "JPEGImages" / "test000.png")])
        assert summary.out.name == expected
        assert {p.name for p in summary.out.iterdir()} == {"detections.json", "test000.jpg"}
    said = json.loads((tmp_path / "detections-2" / "detections.json").read_text())
    assert [entry["drawn"] for entry in said["images"]] == ["test000.jpg"]
    with pytest.raises(UserError):
        detect(run, ["nothing*.png"])
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(UserError, match="none of the 1"):
        detect(run, ["a.png"])
    assert not (tmp_path / "detections-3").exists()


def test_names_that_are_one_file_on_some_systems_do_not_collide():
    taken = {"b.jpg"}
    stems = ["a", "A", "a-2", "b", "stra\u00dfe", "STRASSE", "\u00e9", "e\u0301"]
    names = [_free_name(stem, taken) for stem in stems]
    assert names == ["a.jpg", "A-2.jpg", "a-2-2.jpg", "b-2.jpg", "stra\u00dfe.jpg", "STRASSE-2.jpg", "\u00e9.jpg",
                     "e\u0301-2.jpg"]  # fmt: skip
    assert len(_free_name("x" * 251, taken).encode()) < 255


def test_an_earlier_result_names_no_file_outside_its_folder(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("kept.jpg", "out/input.jpg", "out/old.jpg", "out/notes.txt"):
        (tmp_path / name).write_text("x")
    names = ["../kept.jpg", "old.jpg", "input.jpg", "notes.txt", str(tmp_path / "kept.jpg"), None, 3]
    (tmp_path / "out" / "detections.json").write_text(json.dumps({"images": [{"drawn": name} for name in names]}))
    _remove_earlier(tmp_path / "out", [str(tmp_path / "out" / "input.jpg")])
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    assert left == {"kept.jpg", "out/input.jpg", "out/notes.txt", "out/detections.json"}
    for text in ("", "[]", "{}", '{"images": 3}', '{"images": [3]}', "[" * 100_000):
        (tmp_path / "out" / "detections.json").write_text(text)
        _remove_earlier(tmp_path / "out", [])
