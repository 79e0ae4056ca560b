"""Tests of lookonce.inference.detector."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import GOLDEN
from lookonce import Detector, read_dataset
from lookonce.data.images import BATCH, load_for
from lookonce.data.tiles import Tiling
from lookonce.errors import UserError
from lookonce.inference.detector import AHEAD
from lookonce.inference.tiles import merged
from lookonce.model.boxes import iou
from lookonce.model.model_file import load_model
from lookonce.model.postprocess import DIOU_EXPONENT, Selection


@pytest.fixture(scope="module")
def detector(run):
    return Detector(run)


def test_it_finds_the_squares_of_images_it_never_saw(detector, squares):
    import torch

    right = total = 0
    for record in read_dataset(squares, "test").records:
        found = detector(record.path)
        total += len(record.labels)
        for box, label in zip(record.boxes, record.labels, strict=True):
            same = found.boxes[found.labels == label]
            right += bool(len(same) and iou(torch.from_numpy(same), torch.from_numpy(box)).max() > 0.5)
    assert right / total > 0.7


def test_an_image_is_a_file_an_image_or_an_array(detector, squares):
    file = read_dataset(squares, "test").records[0].path
    image = Image.open(file)
    found = [detector(p) for p in (file, str(file), image, np.array(image))]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].boxes, other.boxes)
    assert found[0].class_names == ("blue", "red")


def test_each_call_may_have_its_threshold_and_classes(detector, squares):
    files = [record.path for record in read_dataset(squares, "test").records]
    everything = detector(files, threshold=0)
    for one, some, red in zip(everything, detector(files, threshold=0.5), detector(files, threshold=0, labels="red")):
        np.testing.assert_array_equal(some.boxes, one.boxes[one.scores > 0.5])
        np.testing.assert_array_equal(red.boxes, one.boxes[one.labels == 1])
        assert red.class_names == ("blue", "red")
    assert detector(files[0]).scores.tolist() == detector(files)[0].scores.tolist()
    with pytest.raises(UserError, match="threshold: 3; expected a number from 0 to 1"):
        detector(files, threshold=3)
    with pytest.raises(UserError, match="labels: 'green'; expected one of blue, red"):
        detector(files, labels=["green"])


def test_detections_know_the_file_they_were_made_from(detector, squares):
    file = read_dataset(squares, "test").records[0].path
    assert detector(file).file == str(file)
    assert detector([str(file)])[0].draw().size == (96, 96)
    assert detector(np.array(Image.open(file))).file is None
    assert [found.file for _, _, found in detector.detect_files([file])] == [str(file)]


def test_one_line_shows_a_detector(detector, run):
    assert repr(detector).startswith(f"Detector({run}: 2 classes (blue, red), input 96 x 96, ")


def test_a_list_gives_a_list_whatever_the_sizes(detector, squares):
    file = read_dataset(squares, "test").records[0].path
    wide = np.full((40, 200, 3), 128, np.uint8)
    found = detector([file, wide, file] * 4)
    assert len(found) == 12
    np.testing.assert_allclose(found[0].boxes, found[11].boxes, atol=1e-3)
    assert detector([]) == []


def test_grey_and_turned_images_are_seen_as_people_see_them(detector, squares, tmp_path):
    image = Image.open(read_dataset(squares, "test").records[0].path)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.rotate(180).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(detector(tmp_path / "turned.png").boxes, detector(image).boxes, atol=1e-3)
    assert len(detector(image.convert("L"))) >= 0


def test_thresholds_are_the_models_own_unless_given(run, squares):
    file = read_dataset(squares, "test").records[0].path
    own, low = Detector(run), Detector(run, threshold=0.0)
    assert own.thresholds.tolist() == list(own.about.thresholds)
    assert len(low(file)) >= len(own(file))
    image = np.array(Image.open(file))
    assert len(own.detect([image], Selection(0.0))[0]) == len(low(file))


@pytest.mark.parametrize("given, message", [
    ({"backend": "abacus"}, "backend: 'abacus'"), ({"threshold": 2.0}, "threshold: 2.0; expected a number from 0 to 1"),
    ({"iou_threshold": -1}, "iou_threshold"), ({"threshold": "0.3"}, "threshold: '0.3'; expected a number from 0 to 1"),
    ({"threshold": float("nan")}, "threshold: nan"), ({"iou_threshold": None}, "iou_threshold: None"),
])  # fmt: skip
def test_wrong_arguments_are_told(run, given, message):
    with pytest.raises(UserError, match=message):
        Detector(run, **given)


@pytest.mark.parametrize("model", [None, 3, b"bytes", ["a.safetensors"], np.zeros(3)])
def test_what_is_no_model_is_told(model):
    with pytest.raises(UserError, match="expected a model file, a run's folder, or a model in memory"):
        Detector(model)


def test_an_image_in_memory_is_found_the_same_on(detector, squares):
    """Bytes, a file, a tensor, with alpha, one by one or several in any iterable."""
    file = read_dataset(squares, "test").records[0].path
    expected, data, pixels = detector(file).to_json(), file.read_bytes(), np.array(Image.open(file))
    opaque = np.dstack((pixels, np.full(pixels.shape[:2], 255, np.uint8)))
    with file.open("rb") as opened:
        several = [data, io.BytesIO(data), opened, opaque, torch.from_numpy(pixels)]
        assert [detector(one).to_json() for one in several] == [expected] * 5
        for given in (several, tuple(several), iter(several)):
            assert [found.to_json() for found in detector(given)] == [expected] * 5
    assert len(detector(np.zeros((40, 30, 1), np.uint8))) >= 0


@pytest.mark.parametrize("given, message", [
    (None, "cv2.imread returns None"), ([None], "cv2.imread returns None"), (0, "int '0' is not an image"),
    (torch.zeros(3, 64, 64), "give .255 . image"), (np.zeros((2, 8, 8, 3), np.uint8), "BGR"),
    ("https://example.org/a.jpg", "a web address; download it first"), (b"", "an empty file"),
])  # fmt: skip
def test_what_is_no_image_is_told(detector, given, message):
    with pytest.raises(UserError, match=message):
        detector(given)


def test_an_image_that_cannot_be_read_is_told(detector, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        detector(tmp_path / "no.jpg")


def test_a_runtime_that_is_open_already_is_taken_as_it_is(run, squares):
    from lookonce.inference.backends.open import open_backend
    from lookonce.inference.backends.settings import Settings

    backend = open_backend(run, Settings("torch", "cpu", "fp32"))
    detector = Detector(backend, threshold=0.3)
    assert detector.backend is backend
    image = squares / "JPEGImages" / "test000.png"
    assert detector(image).to_json() == Detector(run, "torch", precision="fp32", threshold=0.3)(image).to_json()


def test_boxes_of_an_image_decoded_at_a_fraction_are_those_of_the_whole(detector, squares, tmp_path):
    """Oracle: the image itself, eight times enlarged, given as pixels; and one of its size as a file."""
    image = Image.open(read_dataset(squares, "test").records[0].path).convert("RGB")
    large = image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.jpg", quality=98, subsampling=0)
    assert load_for(tmp_path / "large.jpg", detector.about.input_size).reduced
    low = Detector(detector.backend, threshold=0.05)
    file, pixels, small = low(tmp_path / "large.jpg"), low(large), low(image)
    best = file.scores.argmax()
    for other, scale in ((pixels, 1), (small, 8)):
        same = other.boxes[other.labels == file.labels[best]]
        near = np.abs(same * scale - file.boxes[best]).max(-1).min()
        assert near < 8 * 3  # three of the small image's pixels


FAMILY = ["dk_v1_64x48", "dk_yolo3_96x64", "dk_yolo4_tiny_96x64", "dk_yolo4_new_96x64", "dk_yolo4_gaussian_48x32"]


@pytest.mark.parametrize("name", FAMILY)
def test_darknets_networks_of_every_family_run_on_every_backend(name):
    """Oracle: the numbers that Darknet computed for these files; here all backends give the same detections."""
    image = np.random.default_rng(0).integers(0, 256, (97, 133, 3), np.uint8)
    results = []
    for backend in ("torch", "openvino", "onnxruntime"):
        if backend == "onnxruntime":
            pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        detector = Detector(GOLDEN / f"{name}.cfg", backend, precision="fp32", threshold=0.3)
        assert detector.about.resize == ("letterbox" if name in ("dk_yolo3_96x64", "dk_yolo4_new_96x64") else "stretch")
        results.append(detector(image))
    first = results[0]
    assert len(first) > 3
    for other in results[1:]:
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_allclose(other.scores, first.scores, atol=1e-4)
        np.testing.assert_allclose(other.boxes, first.boxes, atol=0.05)


def test_diou_suppression_keeps_boxes_with_distant_centres():
    image = np.random.default_rng(0).integers(0, 256, (97, 133, 3), np.uint8)
    file = GOLDEN / "dk_yolo3_96x64.cfg"
    detector = Detector(file, "torch", threshold=0.3)
    diou = replace(detector.selection, distance_exponent=DIOU_EXPONENT)
    assert len(detector.detect([image], diou)[0]) > len(detector(image))
    with pytest.raises(UserError, match="distance_exponent: 0; expected a number above 0, or None"):
        replace(diou, distance_exponent=0)


def test_diou_keeps_boxes_side_by_side_that_iou_suppresses(run):
    model, images = Path(run), np.random.default_rng(4).integers(0, 255, (3, 96, 96, 3), np.uint8)
    alone, apart = (Detector(model, "torch", threshold=0.001, iou_threshold=0.05, nms=nms) for nms in ("iou", "diou"))
    assert (alone.selection.distance_exponent, apart.selection.distance_exponent) == (None, 0.6)
    assert all(len(apart(image)) >= len(alone(image)) for image in images)
    assert sum(len(apart(image)) for image in images) > sum(len(alone(image)) for image in images)
    with pytest.raises(UserError, match="nms: 'soft'; expected one of iou, diou"):
        Detector(model, nms="soft")


def large(squares):
    """Nine images of squares side by side, 288 x 288."""
    files = [record.path for record in read_dataset(squares, "train").records[:9]]
    rows = [np.concatenate([np.array(Image.open(file)) for file in files[n : n + 3]], 1) for n in (0, 3, 6)]
    return np.concatenate(rows)


def test_tiles_are_detected_like_images_of_their_own_and_merged(run, detector, squares):
    tiled, image = Detector(run, tile=(96, 96), overlap=0.25), large(squares)
    tiles = tiled.tiling.of((288, 288))
    assert len(tiles) == 16 + 1
    parts = detector([np.ascontiguousarray(tile.crop(image)) for tile in tiles])
    expected, found = merged((288, 288), tiles, parts, detector.selection), tiled(image)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert len(detector(image)) < len(found) / 2  # the whole image alone is a third of the size it was trained on


def test_files_arrays_and_several_images_give_the_same_tiles(run, squares, tmp_path):
    tiled, image = Detector(run, tile="96x96"), large(squares)
    Image.fromarray(image).save(tmp_path / "a.png")
    small = read_dataset(squares, "test").records[0].path
    one = tiled(image)
    several = tiled([tmp_path / "a.png", small, image])
    [(_, opened, from_file)] = tiled.detect_files([tmp_path / "a.png"])
    assert opened.size == (288, 288)
    for found in (several[0], several[2], from_file, tiled.detect([image])[0]):
        np.testing.assert_allclose(found.boxes, one.boxes, atol=0.01)
        np.testing.assert_array_equal(found.labels, one.labels)
    np.testing.assert_allclose(several[1].boxes, Detector(run)(small).boxes, atol=0.01)  # not larger than a tile
    assert (tiled(image, threshold=0.9).scores > 0.9).all()


def test_a_large_jpeg_is_cut_at_its_full_size(run, squares, tmp_path):
    image = np.tile(large(squares), (3, 3, 1))
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    assert load_for(tmp_path / "a.jpg", (96, 96)).reduced
    found = Detector(run, tile=(192, 192))
    np.testing.assert_array_equal(found(tmp_path / "a.jpg").boxes, found(Image.open(tmp_path / "a.jpg")).boxes)


def test_auto_takes_the_tiles_that_the_model_knows(run, exported):
    model = load_model(run)
    side = model.training["boxes"]["small_side"]
    expected = round(96 * side / 32)
    assert 28 <= side <= 40
    for each in (run, exported / "m.onnx", exported / "m.xml"):
        if each.suffix == ".onnx":
            pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
        assert Detector(each, tile="auto").tiling == Tiling((expected, expected))
    trained = replace(model, training={**model.training, "recipe": {**model.training["recipe"], "tile": "50x40"}})
    assert Detector(trained, tile="auto", overlap=0.5).tiling == Tiling((50, 40), 0.5)
    unknown = replace(model, training={})
    with pytest.raises(UserError, match=r"tile: auto goes by .* does not know; give the size of a tile, such as --til"):
        Detector(unknown, tile="auto")
    assert Detector(unknown).tiling is None


@pytest.mark.parametrize("given", [{"tile": "31x64"}, {"tile": "wide"}, {"overlap": 1}, {"overlap": -0.5}])
def test_tiles_that_cannot_be_are_refused_before_the_model_is_opened(given):
    with pytest.raises(UserError, match=r"^(tile|overlap): .*; expected"):
        Detector("nowhere", **given)


def test_a_tree_of_classes_is_detected_in_tiles(tree_run, squares):
    image = large(squares)
    found = Detector(tree_run, tile=(96, 96), threshold=0.05)(image)
    assert len(found.backed_off) == len(found) > 0


def test_flip_finds_in_an_image_what_it_finds_in_its_mirror_image(run, squares):
    image = np.asarray(Image.open(read_dataset(squares, "test").records[0].path).convert("RGB"))
    plain, both = (Detector(run, "torch", threshold=0.05, flip=flip) for flip in (False, True))
    found, mirrored = both(image), both(np.ascontiguousarray(image[:, ::-1]))
    assert len(found) == len(mirrored) > 0
    np.testing.assert_allclose(found.scores, mirrored.scores, atol=1e-5)
    corners = np.stack(
        (96 - mirrored.boxes[:, 2], mirrored.boxes[:, 1], 96 - mirrored.boxes[:, 0], mirrored.boxes[:, 3]), 1
    )
    np.testing.assert_allclose(found.boxes, corners, atol=1e-3)
    assert not np.allclose(plain(image).scores[:1], found.scores[:1], atol=1e-4)
    [prepared] = both.detect_prepared([both.prepare(image)], [both.selection])  # as the server calls it
    np.testing.assert_allclose(prepared.scores, found.scores, atol=1e-6)


class Counted:
    """A backend that counts the batches that begin."""

    def __init__(self, backend):
        self.info, self.about, self.backend, self.begun = backend.info, backend.about, backend, threading.Semaphore(0)

    def __call__(self, images):
        self.begun.release()
        return self.backend(images)


def test_the_network_runs_on_while_a_batch_becomes_detections(detector, squares):
    files = [record.path for record in read_dataset(squares, "test").records]
    counted = Counted(detector.backend)
    found = Detector(counted).detect_files((files * 40)[: 5 * BATCH])
    next(found)  # of the first batch
    for _ in range(1 + AHEAD):
        assert counted.begun.acquire(timeout=60)
    found.close()  # what was not asked for does not run
    assert not counted.begun.acquire(timeout=0.2)


@pytest.mark.parametrize("tile", [None, "48x48"])
def test_many_files_come_in_order_whatever_their_batch(run, squares, tmp_path, tile):
    (tmp_path / "a.jpg").write_text("text")
    files = [tmp_path / "no.jpg", *[record.path for record in read_dataset(squares, "test").records] * 3]
    files[3:3] = files[9:9] = [tmp_path / "a.jpg"]
    files.append(tmp_path / "b.jpg")
    own = Detector(run, tile=tile)
    found = list(own.detect_files(files))
    assert [path for path, *_ in found] == [str(file) for file in files]
    for path, image, detections in found:
        if isinstance(image, UserError):
            assert path.endswith(".jpg")
            assert len(detections) == 0
        else:
            np.testing.assert_allclose(detections.boxes, own(path).boxes, atol=0.01)
            assert detections.file == path
    assert sum(isinstance(image, UserError) for _, image, _ in found) == 4
    assert [path for path, *_ in own.detect_files([tmp_path / "no.jpg"])] == [str(tmp_path / "no.jpg")]


def test_an_error_of_the_network_reaches_the_caller(detector, squares):
    class Fails(Counted):
        def __call__(self, images):
            raise UserError("out of memory")

    files = [record.path for record in read_dataset(squares, "test").records]
    with pytest.raises(UserError, match="out of memory"):
        list(Detector(Fails(detector.backend)).detect_files(files * 5))
