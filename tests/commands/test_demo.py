"""Tests of lookonce.commands.demo."""

import pytest

from lookonce.cli import main
from lookonce.commands import demo as d
from lookonce.data import moving_digits
from lookonce.inference.frame_lines import read_lines


@pytest.fixture
def small(monkeypatch):
    """The demo on a few small pages, with the network of the tests."""
    write = d.write_digits
    monkeypatch.setattr(d, "write_digits", lambda folder, **given: write(folder, **{**given, "pages": (9, 2, 3)}))
    monkeypatch.setattr(d, "DIGITS", {**d.DIGITS, "network": "nano", "epochs": 1, "size": 64})


def test_the_demo_walks_the_users_path_and_ends_with_score_and_page(small, tmp_path, capsys):
    assert main(["demo", str(tmp_path / "demo")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2].startswith("mAP@0.5 0.")
    page = tmp_path / "demo" / "runs" / "digits-1" / "demo.html"
    assert lines[-1] == str(page)
    assert page.is_file()
    assert (tmp_path / "demo" / "detections" / "detections.json").is_file()


def test_the_video_is_tracked_and_scored_with_the_detector_that_is_there(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(moving_digits, "DIGITS", 3)
    folder = tmp_path / "demo"
    for again in (False, True):
        assert main(["demo", str(folder), "--video"]) == 0
        video, tracks, counts, path = capsys.readouterr().out.strip().splitlines()[-4:]
        clip = moving_digits.make_clip(0)
        assert video.startswith(f"video: {len(clip.times)} frames, mAP@0.5 0.")
        assert tracks.startswith("HOTA ")
        assert [f"(truth {number})" in counts for number in clip.crossings().values()] == [True, True]
        assert path == str(folder / "video" / "detections" / "moving-digits.mp4")
        lines = read_lines(folder / "video" / "detections" / "moving-digits.jsonl")
        assert [line.time for line in lines] == pytest.approx(clip.times, abs=1e-4)
        if not again:
            monkeypatch.setattr(d, "train", None)  # the second time nothing is trained
    assert [path.name for path in (folder / "runs").iterdir()] == ["digits-1"]


def test_a_detector_that_knows_the_truth_has_a_map_of_1_on_the_video(tmp_path):
    clip = moving_digits.make_clip(0)
    truth = {round(frame.time, 4): frame for frame in clip.frames()}
    names = tuple("0123456789")
    source = tmp_path / "clip.mp4"
    true = d._write_clip(clip, source)
    assert [one.ids.tolist() for one in true] == [frame.ids.tolist() for frame in truth.values()]

    class Known:
        def detect(self, images, selection):
            return [d.Detections(f.boxes, [0.9] * len(f.ids), f.labels, names) for f in truth.values()]

    assert d._mean_ap(Known(), source, true) == pytest.approx(1)


def test_without_the_packages_for_videos_the_demo_says_so_before_it_trains(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(d, "find_spec", lambda name: None)
    assert main(["demo", str(tmp_path / "demo"), "--video"]) == 2
    assert capsys.readouterr().err.strip() == (
        "lookonce: video: needs cv2, which is not installed; run: pip install 'lookonce[demo,video]'"
    )
    assert not (tmp_path / "demo").exists()
