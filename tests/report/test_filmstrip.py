"""The filmstrip: which image it shows, which epochs stay, and that a resumed run continues it."""

import numpy as np
import pytest
from PIL import Image

from lookonce import Detections, read_dataset
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.evaluate import analyse
from lookonce.report.filmstrip import FOLDER, GIF, MOST, SIDE, add_frame, read_frames, subject


@pytest.fixture(scope="module")
def seen(squares):
    dataset = read_dataset(squares, "val")
    found = [Detections(r.boxes, np.full(len(r.boxes), 0.9), r.labels, dataset.labels) for r in dataset.records]
    return dataset, analyse(dataset, found, Rules(), bootstrap=0)


def test_the_image_has_the_most_classes(seen):
    dataset, _ = seen
    classes = [len(set(record.labels.tolist())) for record in dataset.records]
    assert classes[subject(dataset)] == max(classes) == 2
    assert subject(dataset.select(np.zeros(len(dataset), bool))) is None


def test_frames_stay_evenly_from_the_first_to_the_last_and_a_resumed_run_continues(seen, tmp_path):
    for epoch in range(1, 101):
        add_frame(tmp_path, epoch, *seen)
    epochs = [epoch for epoch, _ in read_frames(tmp_path)]
    assert len(epochs) == MOST
    assert epochs[0] == 1
    assert epochs[-1] == 100
    assert np.diff(epochs).min() >= 1
    assert sum(epoch <= 20 for epoch in epochs) >= 4  # most changes early
    add_frame(tmp_path, 100, *seen)  # the same epoch again, as after a resume
    assert [epoch for epoch, _ in read_frames(tmp_path)] == epochs


def test_detections_are_drawn_and_damaged_frames_are_left_out(seen, tmp_path):
    dataset, analysis = seen
    add_frame(tmp_path, 1, dataset, analysis)
    nothing = [Detections([], [], [], dataset.labels)] * len(dataset)
    add_frame(tmp_path, 2, dataset, analyse(dataset, nothing, Rules(), bootstrap=0))
    one, two = (np.asarray(Image.open(file)).astype(int) for file in sorted((tmp_path / FOLDER).iterdir()))
    assert np.abs(one - two).max() > 100
    (tmp_path / FOLDER / "epoch-00003.jpg").write_text("text")
    (tmp_path / FOLDER / "other.jpg").write_text("text")
    assert [epoch for epoch, _ in read_frames(tmp_path)] == [1, 2]
    add_frame(tmp_path, 0, dataset, analysis)  # before the first epoch there is nothing to show
    assert len(read_frames(tmp_path)) == 2


def test_the_gif_has_every_frame_and_leaves_out_damaged_ones(seen, tmp_path):
    for epoch in (1, 2, 7):
        add_frame(tmp_path, epoch, *seen)
    gif = Image.open(tmp_path / GIF)
    assert (gif.n_frames, max(gif.size)) == (3, SIDE)  # a small image is enlarged
    (tmp_path / FOLDER / "epoch-00002.jpg").write_text("text")
    add_frame(tmp_path, 7, *seen)
    assert Image.open(tmp_path / GIF).n_frames == 2
