"""Tests of lookonce.evaluation.tracking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.evaluation.tracking import score
from lookonce.model.detections import Detections

GOLDEN = Path(__file__).parents[1] / "golden" / "trackeval.npz"
BOX, FAR = (100, 100, 140, 180), (400, 100, 440, 180)
NAMES = ("car", "person")


def one(number: int, box: tuple[int, ...] = BOX, label: int = 0) -> Detections:
    return Detections([box], [1], [label], NAMES, ids=[number])


def both(first: int, second: int) -> Detections:
    return Detections([BOX, FAR], [1, 1], [0, 0], NAMES, ids=[first, second])


NOTHING = Detections([], [], [], NAMES, ids=[])


def test_tracks_equal_to_the_truth_score_100() -> None:
    scores = score([both(3, 8)] * 4, [both(1, 2)] * 4)
    assert (scores.hota, scores.detection, scores.association) == pytest.approx((100, 100, 100))
    assert (scores.idf1, scores.mota, scores.switches) == (100, 100, 0)


def test_a_track_broken_in_the_middle_is_half_an_association() -> None:
    scores = score([one(0)] * 4, [one(1)] * 2 + [one(2)] * 2)
    assert (scores.detection, scores.association) == pytest.approx((100, 50))  # each half is 2 of 4 frames
    assert scores.hota == pytest.approx(100 * np.sqrt(0.5))
    assert (scores.idf1, scores.mota, scores.switches) == (50, 75, 1)  # 2 of 4 and 4; 1 error of 4


def test_a_box_beside_its_object_is_a_miss_and_a_false_detection() -> None:
    scores = score([one(0), one(0)], [one(1), one(1, FAR)])
    assert (scores.detection, scores.association) == pytest.approx((100 / 3, 100 / 3))
    assert (scores.idf1, scores.mota, scores.switches) == (50, 0, 0)  # 1 - (1 miss + 1 false) / 2


def test_objects_that_swap_their_numbers_are_two_switches() -> None:
    scores = score([both(0, 1)] * 4, [both(1, 2)] * 2 + [both(2, 1)] * 2)
    assert (scores.detection, scores.association) == pytest.approx((100, 100 / 3))  # 2 frames of 4 + 4 - 2
    assert (scores.idf1, scores.mota, scores.switches) == (50, 75, 2)


def test_a_looser_box_counts_up_to_its_iou() -> None:
    scores = score([one(0)] * 3, [one(1, (100, 100, 140, 164))] * 3)  # IoU .8: 16 of the 19 thresholds
    assert scores.hota == pytest.approx(100 * 16 / 19)
    assert (scores.idf1, scores.mota) == (100, 100)


def test_an_object_that_returns_with_another_number_is_a_switch_and_its_absence_is_none() -> None:
    truth = [one(0)] * 4
    assert score(truth, [one(1), NOTHING, one(1), one(1)]).switches == 0
    assert score(truth, [one(1), NOTHING, one(2), one(2)]).switches == 1


def test_a_detection_of_another_class_is_none_of_the_object() -> None:
    scores = score([one(0)] * 2, [one(1), one(1, label=1)])
    assert scores.mota == 0


def test_detections_without_a_number_are_left_out() -> None:
    assert score([one(0)] * 2, [one(-1), one(1)]) == score([one(0)] * 2, [NOTHING, one(1)])


@pytest.mark.parametrize("number", range(3))
def test_scores_are_those_of_trackeval(number: int) -> None:
    """golden/trackeval.npz says in `note` how it was made."""
    with np.load(GOLDEN) as golden:
        truth, tracks, expected = (golden[f"{name}_{number}"] for name in ("truth", "tracks", "scores"))
    frames = int(truth[:, 0].max()) + 1

    def detections(rows: np.ndarray) -> list[Detections]:
        parts = (rows[rows[:, 0] == frame] for frame in range(frames))
        return [Detections(p[:, 2:], np.ones(len(p)), np.zeros(len(p)), NAMES, ids=p[:, 1]) for p in parts]

    found = score(detections(truth), detections(tracks))
    assert (found.hota, found.detection, found.association, found.idf1, found.mota, found.switches) == pytest.approx(
        tuple(expected), abs=1e-6
    )


@pytest.mark.parametrize(
    ("truth", "tracks", "message"),
    [
        ([one(0)], [], "tracks: 0 frames; expected 1, one for each frame of the truth"),
        ([NOTHING], [one(1)], "truth: no objects in any frame"),
        ([one(0)], [Detections([BOX], [1], [0], NAMES)], "tracks: frame 0: 1 boxes without ids"),
        ([both(1, 1)], [NOTHING], "truth: frame 0: an id is there twice"),
        ([one(0)], [Detections([BOX], [1], [0], ("bus",), ids=[1])], "class 'bus'; expected one of"),
    ],
)
def test_bad_input_is_named(truth: list[Detections], tracks: list[Detections], message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(truth, tracks)


def test_scores_print_in_one_line() -> None:
    text = str(score([one(0)] * 4, [one(1)] * 2 + [one(2)] * 2))
    assert text == "HOTA 70.7 (DetA 100.0, AssA 50.0), IDF1 50.0, MOTA 75.0, id switches 1"
