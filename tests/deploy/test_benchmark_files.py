"""Mirrors src/lookonce/speed/files.py."""

import io
import json

import pytest

from lookonce import Detector
from lookonce.data.images import BATCH
from lookonce.data.lookup import find_images
from lookonce.deploy import benchmark as from_files
from lookonce.deploy.benchmark import Rounds, Spent, Work, files_speed, measure_files, readable
from lookonce.errors import UserError


@pytest.fixture(scope="module")
def images(squares):
    return find_images(squares / "JPEGImages")


def test_figures_are_medians_over_rounds():
    decode, detect, bare = ((Spent(9, 2), Spent(9, 3)), (Spent(10, 20), Spent(20, 40)), (Spent(8, 16), Spent(18, 17)))
    found = files_speed("m", "r", (500, 8), Rounds([list(each) for each in zip(decode, detect, bare)], False))
    assert found.images_per_s == pytest.approx(8 / 15)
    assert found.bare_images_per_s == pytest.approx(8 / 13)
    assert found.share_of_bare == pytest.approx((0.8 + 0.9) / 2)
    assert found.network_ms == pytest.approx(16.5 / 8 * 1e3)
    assert found.decode_ms == pytest.approx(2.5 / 8 * 1e3)
    assert found.share_of_possible == pytest.approx((18 / 20 + 20 / 40) / 2)
    assert found.images == 500


def test_a_slice_is_decoded_and_detected_as_a_detector_does(run, images, monkeypatch):
    detector = Detector(run, "torch", device="cpu", precision="fp32")
    work = Work(detector, images[:3], BATCH)
    work.decode()
    assert work.part == [images[n % 3] for n in range(BATCH)]  # from the start again where there are few
    written = []
    monkeypatch.setattr(from_files, "write_entry", lambda _, file, found, first: written.append((file, found, first)))
    work.detect()
    assert [file for file, _, _ in written] == work.part
    expected = detector(work.part)
    assert [found.to_json() for _, found, _ in written] == [one.to_json() for one in expected]
    assert any(map(len, expected))
    work.decode()
    assert work.part[0] == images[BATCH % 3]


def test_rounds_go_through_the_images_once(run, images, monkeypatch):
    seen, places = [], []
    real = from_files.load_for
    monkeypatch.setattr(from_files, "load_for", lambda file, *of: seen.append(file) or real(file, *of))
    found, stopped = measure_files(run / "model.safetensors", images, 3, 1, places.append)
    assert (found.images, stopped) == (len(images), False)
    assert len(seen) == (3 + from_files.WARM_UP) * 16  # 40 images in three slices of whole batches
    assert places == [0, 1, 2] * 4
    assert found.backend.startswith(("openvino", "torch"))


def test_a_stop_before_the_first_slice_is_nothing(run, images):
    def stop(_):
        raise KeyboardInterrupt

    assert measure_files(run / "model.safetensors", images, 3, 1, stop) == (None, True)


def test_files_that_are_no_images_are_told_and_left_out(images, tmp_path, caplog):
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    assert readable([str(bad), images[0]]) == [images[0]]
    assert "skipped" in caplog.text
    with pytest.raises(UserError, match=r"none of the 1 images could be read; the first: .*bad\.jpg"):
        readable([str(bad)])


def test_what_is_written_is_json(run, images, monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(text, "close", lambda: None)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: text)
    work = Work(Detector(run, "torch", device="cpu"), images, BATCH)
    work.decode()
    work.detect()
    assert [entry["file"] for entry in json.loads(f"[{text.getvalue()}]")] == images[:BATCH]
