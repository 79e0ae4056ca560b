"""Tests of lookonce.commands.detect."""

import hashlib
import json
import os
import shutil
import sys
from dataclasses import replace
from io import BytesIO, TextIOWrapper

import pytest
from PIL import Image

from lookonce import evaluate
from lookonce.cli import main
from lookonce.commands.detect import LOOKED_AT, _free_stem, detect
from lookonce.data.download import MOST_BYTES
from lookonce.errors import Interrupted, UserError
from lookonce.inference.detector import Detector
from lookonce.model.model_file import load_model, save_model


def test_images_become_drawn_images_and_json(run, squares, tmp_path):
    files = sorted((squares / "JPEGImages").glob("test*.png"))
    summary = detect(run, [str(squares / "JPEGImages" / "test*.png")], out=tmp_path)
    said = json.loads((tmp_path / "detections.json").read_text())
    assert [entry["file"] for entry in said["images"]] == [str(f) for f in files]
    assert sum(len(entry["detections"]) for entry in said["images"]) == summary.detections > 0
    assert set(said["images"][0]["detections"][0]) == {"label", "class_id", "score", "box"}
    assert said["images"][0]["width"] == said["images"][0]["height"] == 96
    model = (run / "model.safetensors").read_bytes()
    assert said["model_digest"] == f"sha256:{hashlib.sha256(model).hexdigest()}"
    assert said["thresholds"] == dict(zip(("blue", "red"), Detector(run).thresholds.round(6).tolist()))
    assert Image.open(tmp_path / "test000.jpg").size == (96, 96)
    assert len(list(tmp_path.iterdir())) == 9
    assert str(summary).startswith(f"{summary.detections} detections in 8 images -> {tmp_path} (drawn images, detect")


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
    with pytest.raises(Interrupted, match=r"stopped after 3 of 8 images: \d+ detections in 3 images") as stopped:
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
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read \(see above\); nothing was written"):
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
    with pytest.raises(UserError, match="cannot be read"):
        detect(run, ["a.png"])
    assert not (tmp_path / "detections-3").exists()


def test_names_that_are_one_file_on_some_systems_do_not_collide():
    taken = {"b"}
    stems = ["a", "A", "a-2", "b", "stra\u00dfe", "STRASSE", "\u00e9", "e\u0301"]
    names = [_free_stem(stem, taken) for stem in stems]
    assert names == ["a", "A-2", "a-2-2", "b-2", "stra\u00dfe", "STRASSE-2", "\u00e9", "e\u0301-2"]
    assert len(_free_stem("x" * 251, taken).encode()) < 251


def test_every_format_is_written_where_the_next_detect_can_remove_it(run, squares, tmp_path):
    files = [str(squares / "JPEGImages" / f"test00{n}.png") for n in (0, 1)]
    summary = detect(run, files, out=tmp_path / "out", save=["yolo", "VOC", "coco", "csv", "crops"])
    said = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert said["formats"] == ["yolo", "voc", "coco", "csv", "crops"]
    written = {name for entry in said["images"] for name in (entry["drawn"], *entry["written"])}
    there = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert there == written | {"detections.json", "coco.json", "detections.csv", "classes.txt"}
    assert "labels/, annotations/, crops/)" in str(summary)
    (tmp_path / "out" / "labels" / "test000.md").write_text("mine")
    detect(run, files[:1], out=tmp_path / "out", overwrite=True)
    there = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert there == {"detections.json", "test000.jpg", "labels/test000.md"}
    (tmp_path / "out" / "coco.json").write_text("mine")
    with pytest.raises(UserError, match=r"coco\.json: exists, and detect did not write it"):
        detect(run, files[:1], out=tmp_path / "out", overwrite=True, save="coco")


def test_a_labels_file_of_the_users_is_never_replaced(run, squares, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "test000.txt").write_text("mine")
    detect(run, [squares / "JPEGImages" / "test000.png"], out=tmp_path, overwrite=True, save=["yolo"])
    assert (tmp_path / "labels" / "test000.txt").read_text() == "mine"
    assert (tmp_path / "labels" / "test000-2.txt").is_file()


def test_only_the_wanted_classes_are_detected(run, squares, tmp_path):
    files = sorted(map(str, (squares / "JPEGImages").glob("test*.png")))
    summary = detect(run, files, out=tmp_path, labels=["Red"], save_images=False)
    said = json.loads((tmp_path / "detections.json").read_text())
    names = [one["label"] for entry in said["images"] for one in entry["detections"]]
    assert set(names) == {"red"}
    assert len(names) == summary.detections == sum(len(found.only("red")) for found in Detector(run)(files))
    assert said["only"] == ["red"]


def test_an_image_comes_from_standard_input(run, squares, tmp_path, monkeypatch):
    content = (squares / "JPEGImages" / "test000.png").read_bytes()
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(content)))
    summary = detect(run, "<stdin>", out=tmp_path / "out")  # the command line's word for -
    assert f"in 1 image -> {tmp_path / 'out'} (drawn image, detections.json)" in str(summary)
    assert summary.to_json() == {"out": str(tmp_path / "out"), "written": ("drawn image", "detections.json"),
                                 "images": 1, "skipped": 0, "detections": summary.detections}  # fmt: skip
    said = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["file"] for entry in said["images"]] == ["-"]
    assert Image.open(tmp_path / "out" / "stdin.jpg").size == (96, 96)
    for nothing, message in ((b"", "standard input has 0"), (bytes(MOST_BYTES + 1), "more than 64 MB")):
        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(nothing)))
        with pytest.raises(UserError, match=message):
            detect(run, "-", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_image_comes_from_an_address(run, squares, tmp_path, monkeypatch):
    content = (squares / "JPEGImages" / "test000.png").read_bytes()
    monkeypatch.setattr("lookonce.commands.detect.fetch_image", {"https://a.b/c/photo.png?x=1": content}.get)
    detect(run, ["https://a.b/c/photo.png?x=1"], out=tmp_path)
    said = json.loads((tmp_path / "detections.json").read_text())
    assert [(entry["file"], entry["drawn"]) for entry in said["images"]] == [
        ("https://a.b/c/photo.png?x=1", "photo.jpg")]  # fmt: skip


def test_what_cannot_be_read_is_refused_before_the_model_is_opened(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"a\.mp4: no such file; expected a video"):
        detect("nowhere", ["a.mp4"], out=tmp_path / "out")
    with pytest.raises(UserError, match="ftp://cam/1: expected the http or https address of one image"):
        detect("nowhere", ["ftp://cam/1"], out=tmp_path / "out")
    with pytest.raises(UserError, match="track: is for videos, cameras and streams; leave it out for images"):
        detect("nowhere", ["a.jpg"], out=tmp_path / "out", track=True)
    with pytest.raises(UserError, match=r"a\.mp4: no such file; expected a video"):
        detect("nowhere", ["a.jpg", "a.mp4"], out=tmp_path / "out")
    with pytest.raises(UserError, match="http://h:1: a server reads images; give the model itself for videos"):
        detect("http://h:1", ["a.mp4"], out=tmp_path / "out")
    with pytest.raises(UserError, match="save: voc is for images; of videos, yolo, csv, crops are written"):
        detect("nowhere", ["a.mp4"], out=tmp_path / "out", save=["voc"])
    with pytest.raises(UserError, match="resume: give --out with the folder of the call to continue"):
        detect("nowhere", ["a.mp4"], resume=True)
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    with pytest.raises(UserError, match="rtsp://cam/1: not opened, because of --offline"):
        detect("nowhere", ["rtsp://cam/1"], out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="images: none given"):
        detect("nowhere", [], out=tmp_path / "out")
    with pytest.raises(UserError, match="save: 'pdf'; expected one of yolo, voc, coco, csv, crops"):
        detect("nowhere", ["a.jpg"], out=tmp_path / "out", save=["pdf"])


def test_heic_without_its_package_is_reported_once_and_counted(run, squares, tmp_path, monkeypatch, caplog):
    for name in "abc":
        (tmp_path / f"{name}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    shutil.copy(squares / "JPEGImages" / "test000.png", tmp_path / "d.png")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    summary = detect(run, tmp_path, out=tmp_path / "out", save_images=False)
    assert "3 images skipped (3 of them HEIC: pip install pillow-heif)" in str(summary)
    assert sum("pillow-heif" in record.getMessage() for record in caplog.records) == 1


def test_a_class_at_the_lowest_recommended_threshold_is_named(run, squares, tmp_path):
    model = replace(load_model(run / "model.safetensors"), thresholds=(0.1, 0.4))
    save_model(model, tmp_path / "weak.safetensors")
    file = squares / "JPEGImages" / "test000.png"
    said = str(detect(tmp_path / "weak.safetensors", [file], out=tmp_path / "out"))
    assert "the model is unsure about blue, so the threshold is the lowest recommended, 0.1 (see --threshold)" in said
    assert "unsure" not in str(detect(tmp_path / "weak.safetensors", [file], out=tmp_path / "given", threshold=0.1))


def test_drawing_options_reach_the_images(run, squares, tmp_path):
    file = squares / "JPEGImages" / "test000.png"
    detect(run, [file], out=tmp_path / "a", line_width=6)
    detect(run, [file], out=tmp_path / "b", hide_labels=True)
    assert (tmp_path / "a" / "test000.jpg").read_bytes() != (tmp_path / "b" / "test000.jpg").read_bytes()
    with pytest.raises(UserError, match="line-width: 0"):
        detect(run, [file], out=tmp_path / "c", line_width=0)


def test_evaluate_scores_what_detect_wrote_the_same_in_every_format(run, squares, tmp_path):
    detect(run, [str(squares / "JPEGImages" / "test*.png")], out=tmp_path, threshold=0.01, save=("yolo", "coco", "csv"))
    places = [tmp_path / "detections.json", tmp_path / "coco.json", tmp_path / "labels"]
    scores = [evaluate(place, squares, bootstrap=0).mean_ap for place in places]
    assert scores[0] > 0.3
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)


def test_a_published_model_detects_by_name_after_one_download(published, published_weights, squares, tmp_path, capsys):
    server = published("good")
    words = [
        "detect",
        "coco",
        str(squares / "JPEGImages" / "test000.png"),
        "--threshold",
        "0.001",
        "--backend",
        "torch",
    ]
    assert main([*words, "--out", str(tmp_path / "a"), "--offline"]) == 2
    assert f"save {server.url('good')}" in capsys.readouterr().err
    assert server.asked == []
    os.environ["LOOKONCE_OFFLINE"] = "0"
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert main([*words, "--out", str(tmp_path / "b"), "--offline"]) == 0
    assert len(server.asked) == 1
    said = json.loads((tmp_path / "b" / "detections.json").read_text())
    assert said["model"] == "x"
    assert said["model_digest"] == f"sha256:{hashlib.sha256(published_weights).hexdigest()}"
    assert said["labels"][79] == "toothbrush"
    assert said["images"] == json.loads((tmp_path / "a" / "detections.json").read_text())["images"]


def test_tiles_are_asked_for_in_words_and_told_in_the_result(run, squares, tmp_path, capsys):
    image = squares / "JPEGImages" / "test000.png"
    words = ["detect", str(run), str(image), "--out"]
    assert main([*words, str(tmp_path / "a"), "--tile", "64x48", "--overlap", ".3"]) == 0
    told = json.loads((tmp_path / "a" / "detections.json").read_text())
    assert (told["tile"], told["overlap"]) == ([64, 48], 0.3)
    found = Detector(run, tile=(64, 48), overlap=0.3)(image)
    boxes = [one["box"] for one in told["images"][0]["detections"]]
    assert boxes == [pytest.approx(box, abs=0.02) for box in found.boxes.tolist()]
    assert main([*words, str(tmp_path / "b")]) == 0
    assert "tile" not in json.loads((tmp_path / "b" / "detections.json").read_text())
    capsys.readouterr()


@pytest.mark.parametrize("words, said", [
    (["--tile", "31x64"], "tile: 31x64; expected auto, or WIDTHxHEIGHT in pixels such as 640x480, sides of 32 or more"),
    (["--tile", "large"], "tile: 'large'; expected auto, or WIDTHxHEIGHT"),
    (["--overlap", "1"], "overlap: 1.0; expected a part of a tile, 0 to below 1"),
    (["--tile", "64x64", "--overlap", "-.1"], "overlap: -0.1; expected a part of a tile"),
])  # fmt: skip
@pytest.mark.parametrize("command", ["detect", "evaluate"])
def test_tiles_that_cannot_be_are_one_line_and_exit_2(
    command, words, said, run, squares, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([command, str(run), str(squares), *words]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "tile" in line]
    assert said in line
    assert not list(tmp_path.iterdir())


def test_tiles_are_not_asked_of_a_server(squares, tmp_path):
    with pytest.raises(UserError, match="tile, flip: are those of the server; leave them out"):
        detect("http://127.0.0.1:9", squares / "JPEGImages", out=tmp_path / "a", tile="64x64")
