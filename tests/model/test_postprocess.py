"""Tests of lookonce.model.postprocess: against Darknet, the blog, and a loop that removes one box at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from conftest import GOLDEN
from lookonce.errors import ConfigError
from lookonce.model.boxes import cxcywh_to_xyxy, iou
from lookonce.model.detections import Predictions
from lookonce.model.heads import decode
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.postprocess import Selection, average_views, nms_per_class, postprocess
from lookonce.model.resize import boxes_to_image, boxes_to_input

DARKNET = {  # name: anchors of its cfg in cells, softmax
    "yolov2s_160": ([(0.9, 1.1), (1.5, 2.4), (2.1, 1.8), (2.4, 2.2), (3.4, 2.6)], True),
    "yolov2s_160_bccd": ([(0.9, 1.1), (1.5, 2.4), (2.1, 1.8), (2.4, 2.2), (3.4, 2.6)], True),
    "tinys_160": ([(0.9, 1.1), (1.5, 2.4), (2.1, 1.8), (2.4, 2.2), (3.4, 2.6)], True),
    "logistic_96": ([(2.6, 2.1), (3.1, 2.2), (4.1, 3.5)], False),
}


@pytest.fixture(scope="module")
def darknet() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "dk_nms.npz"))


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> NDArray[np.int64]:
    """nms_per_class of one class, without a score threshold."""
    above_zero = scores + 1000
    return nms_per_class(boxes, above_zero[:, None], Selection(0, iou_threshold))[0]


def loop_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> list[int]:
    """Take the best, strike what overlaps it, repeat; max() takes the first of equals."""
    left, kept = list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda k: float(scores[k]))
        kept.append(best)
        left = [k for k in left if k != best and bool(iou(boxes[best], boxes[k]) <= iou_threshold)]
    return kept


def random_boxes(count: int, seed: int, scores: int) -> tuple[Tensor, Tensor]:
    """Small whole-number boxes and few different scores: exact ties of both."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 8, (count, 2), generator=generator)
    size = torch.randint(1, 6, (count, 2), generator=generator)
    value = torch.randint(1, scores + 1, (count,), generator=generator) / scores
    return torch.cat((corner, corner + size), 1).float(), value


@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(10))
def test_nms_is_the_greedy_loop_also_with_ties(seed: int, threshold: float) -> None:
    boxes, scores = random_boxes(5 * seed, seed, scores=6)
    assert nms(boxes, scores, threshold).tolist() == loop_nms(boxes, scores, threshold)


def test_a_chain_of_boxes_keeps_every_second_one() -> None:
    left = torch.arange(200.0)
    boxes = torch.stack((left, torch.zeros(200), left + 2, torch.ones(200)), 1)  # neighbours overlap by 1/3
    assert nms(boxes, -left, 0.3).tolist() == list(range(0, 200, 2))


def test_an_iou_of_just_the_threshold_does_not_suppress() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.499).tolist() == [0]


def test_of_equal_scores_the_lower_index_stays() -> None:
    assert nms(torch.tensor([[0.0, 0, 10, 10]] * 3), torch.tensor([0.5, 0.5, 0.5]), 0.5).tolist() == [0]


@pytest.mark.parametrize("seed", range(5))
def test_nms_per_class_is_the_loop_on_each_class(seed: int) -> None:
    boxes, _ = random_boxes(40, seed, scores=6)
    scores = torch.randint(0, 9, (40, 3), generator=torch.Generator().manual_seed(seed)) / 8
    box, label = nms_per_class(boxes, scores, Selection(0.25, 0.4))
    expected = set()
    for one in range(3):
        rows = (scores[:, one] > 0.25).nonzero()[:, 0]
        expected |= {(int(rows[k]), one) for k in loop_nms(boxes[rows], scores[rows, one], 0.4)}
    pairs = list(zip(box.tolist(), label.tolist(), strict=True))
    assert set(pairs) == expected
    assert pairs == sorted(pairs, key=lambda pair: (-float(scores[pair]), pair))


@pytest.mark.parametrize("case", ["c20_t0", "c20_t1", "c2_t0", "c2_t1"])
def test_nms_per_class_keeps_what_ordinary_suppression_of_the_blog_s_predictions_keeps(case: str) -> None:
    golden = np.load(GOLDEN / "seed_nms.npz")
    decoded = torch.from_numpy(golden[f"{case.split('_')[0]}_decoded"]).flatten(0, 2)  # [N, 5+C]
    threshold = float(golden[f"{case}_obj_threshold"])
    chosen = decoded[decoded[:, 5:].amax(1) > threshold]
    boxes = cxcywh_to_xyxy(chosen[:, :4])
    np.testing.assert_allclose(boxes.numpy(), golden[f"{case}_pre_boxes"], atol=1e-6)
    box, label = nms_per_class(boxes, chosen[:, 5:], Selection(threshold, float(golden[f"{case}_iou_threshold"])))
    expected = {tuple(pair) for pair in golden[f"{case}_standard_nms_box_class"].tolist()}
    assert set(zip(box.tolist(), label.tolist(), strict=True)) == expected


@pytest.mark.parametrize("name", DARKNET)
def test_nms_per_class_keeps_what_darknet_keeps(name: str, darknet: dict[str, np.ndarray]) -> None:
    boxes = cxcywh_to_xyxy(torch.from_numpy(darknet[f"{name}_dets_pre_bbox"]))
    boxes = boxes * torch.from_numpy(darknet[f"{name}_image_wh"]).repeat(2)  # IoU does not ask for the unit
    scores = torch.from_numpy(darknet[f"{name}_dets_pre_prob"])
    box, label = nms_per_class(boxes, scores, Selection(0.0, float(darknet[f"{name}_nms"])))
    final = darknet[f"{name}_final_box_index"], darknet[f"{name}_final_class"]
    assert set(zip(box.tolist(), label.tolist(), strict=True)) == set(zip(*(f.tolist() for f in final), strict=True))


@pytest.mark.parametrize("name", ["tinys_160", "logistic_96"])  # the others have t_w to 50, which decode cuts at 16
def test_the_way_from_raw_output_to_detections_is_darknet_s(name: str, darknet: dict[str, np.ndarray]) -> None:
    anchors, softmax = DARKNET[name]
    raw = torch.from_numpy(darknet[f"{name}_region_before"])[None]
    width, height = darknet[f"{name}_frame"].tolist()
    layer = Region(tuple(anchors), raw.shape[1] // len(anchors) - 5, softmax=softmax)
    predictions = decode([raw], [PlacedHead(layer, width // raw.shape[-1])])
    size = tuple(darknet[f"{name}_image_wh"].tolist())
    classes = tuple(map(str, range(predictions.class_prob.shape[-1])))
    selection = Selection(float(darknet[f"{name}_thresh"]), float(darknet[f"{name}_nms"]), clip=False)
    (found,) = postprocess(predictions, [size], (width, height), "letterbox", classes, selection)
    label, prob = darknet[f"{name}_final_class"], darknet[f"{name}_final_prob"]
    ours, theirs = np.lexsort((found.scores, found.labels)), np.lexsort((prob, label))
    boxes = cxcywh_to_xyxy(torch.from_numpy(darknet[f"{name}_final_bbox"])).numpy() * np.tile(size, 2)
    assert found.labels[ours].tolist() == label[theirs].tolist()
    np.testing.assert_allclose(found.scores[ours], prob[theirs], atol=1e-5)
    np.testing.assert_allclose(found.boxes[ours], boxes[theirs], rtol=1e-5, atol=1e-5 * max(size))


def one_image(boxes: list[list[float]], objectness: list[float], class_prob: list[list[float]]) -> Predictions:
    return Predictions(torch.tensor([boxes]), torch.tensor([objectness]), torch.tensor([class_prob]))


def test_a_box_is_found_once_for_each_class_it_may_be() -> None:
    predictions = one_image([[10, 10, 50, 50]], [0.9], [[0.5, 0.45, 0.05]])
    (found,) = postprocess(predictions, [(100, 100)], (100, 100), "stretch", ("a", "b", "c"), Selection(0.3))
    assert found.names == ("a", "b")
    assert found.scores.tolist() == pytest.approx([0.45, 0.405])


def test_a_score_of_just_the_threshold_is_not_found() -> None:
    predictions = one_image([[10, 10, 50, 50]], [0.5], [[0.5, 0.5]])
    assert len(postprocess(predictions, [(100, 100)], (100, 100), "stretch", ("a", "b"), Selection(0.25))[0]) == 0
    assert len(postprocess(predictions, [(100, 100)], (100, 100), "stretch", ("a", "b"), Selection(0.24))[0]) == 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_that_is_not_finite_passes(bad: float) -> None:
    good = [10.0, 10, 50, 50]
    predictions = one_image(
        [good, [10, bad, 50, 50], [60, 60, 90, 90], good], [0.8, 0.8, bad, 0.9], [[0.9], [0.9], [0.9], [bad]]
    )
    (found,) = postprocess(predictions, [(100, 100)], (100, 100), "stretch", ("a",), Selection(0.1))
    assert found.boxes.tolist() == [good]


def test_overlap_is_measured_on_the_image_and_not_on_the_input() -> None:
    image = torch.tensor([[0.0, 0, 100, 10], [0, 0, 100, 22]])  # IoU .4545
    stretched = boxes_to_input(image, (1000, 100), (100, 100), "stretch")
    predictions = Predictions(stretched[None], torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, 1))
    (found,) = postprocess(predictions, [(1000, 100)], (100, 100), "stretch", ("a",), Selection(0.1, 0.45))
    np.testing.assert_allclose(found.boxes, image[:1].numpy(), atol=1e-4)


def test_boxes_are_cut_to_the_image_after_suppression_and_empty_ones_dropped() -> None:
    boxes = [[-900.0, 0, 50, 50], [0, 0, 50, 50], [-50, -50, -10, -10]]  # the first two are alike only once cut
    predictions = one_image(boxes, [0.9, 0.8, 0.7], [[1.0]] * 3)
    (cut,) = postprocess(predictions, [(100, 100)], (100, 100), "stretch", ("a",), Selection(0.1))
    assert cut.boxes.tolist() == [[0, 0, 50, 50], [0, 0, 50, 50]]
    (whole,) = postprocess(predictions, [(100, 100)], (100, 100), "stretch", ("a",), Selection(0.1, clip=False))
    assert whole.boxes.tolist() == boxes


def test_the_images_of_a_batch_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(3, 2 * 8, 5, 6, generator=generator)
    sizes = [(300, 200), (77, 310), (192, 160)]
    predictions = decode([raw], [PlacedHead(Region(((1.0, 1.5), (3.0, 2.0)), 3), 32)])

    def found(p: Predictions, s: list[tuple[int, int]]) -> list[list[dict[str, object]]]:
        each = postprocess(p, s, (192, 160), "letterbox", ("a", "b", "c"), Selection(0.1))
        return [one.to_json() for one in each]

    tensors = (predictions.boxes, predictions.objectness, predictions.class_prob)
    alone = [found(Predictions(*(t[i : i + 1] for t in tensors)), [size]) for i, size in enumerate(sizes)]
    assert found(predictions, sizes) == [one[0] for one in alone]
    assert all(alone)


def test_only_the_best_meet_and_only_the_best_are_given() -> None:
    boxes, scores = random_boxes(60, 1, scores=50)
    predictions = Predictions(boxes[None], scores[None], torch.ones(1, 60, 1))
    few = Selection(0.1, 1.0, max_detections=7)
    (found,) = postprocess(predictions, [(20, 20)], (20, 20), "stretch", ("a",), few)
    assert found.scores.tolist() == scores.sort(descending=True).values[:7].tolist()
    box, _ = nms_per_class(boxes, scores[:, None], Selection(0.1, 1.0, max_candidates=5))
    assert box.tolist() == scores.sort(descending=True, stable=True).indices[:5].tolist()


def test_no_predictions_no_detections() -> None:
    predictions = Predictions(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, 3))
    found = postprocess(predictions, [(9, 9)] * 2, (32, 32), "letterbox", ("a", "b", "c"), Selection(0.1))
    assert [len(one) for one in found] == [0, 0]


def test_predictions_of_half_precision_are_read_as_float32() -> None:
    predictions = one_image([[10, 10, 50, 50]], [0.9], [[0.9]])
    half = Predictions(*(t.bfloat16() for t in (predictions.boxes, predictions.objectness, predictions.class_prob)))
    (found,) = postprocess(half, [(100, 100)], (100, 100), "stretch", ("a",), Selection(0.1))
    assert found.scores[0] == np.float32(half.objectness[0, 0].float() * half.class_prob[0, 0, 0].float())


def test_boxes_go_back_by_the_inverse_of_the_resize() -> None:
    boxes = torch.tensor([[100.0, 120, 200, 220]])
    predictions = Predictions(boxes[None], torch.ones(1, 1), torch.ones(1, 1, 1))
    (found,) = postprocess(predictions, [(500, 375)], (416, 416), "letterbox", ("a",), Selection(0.1))
    expected = boxes_to_image(boxes, (500, 375), (416, 416), "letterbox")
    np.testing.assert_allclose(found.boxes, expected.numpy())


@pytest.mark.parametrize("wrong", [{"score_threshold": 1.5}, {"iou_threshold": -0.1}, {"max_detections": 0}])
def test_a_selection_outside_its_law_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}.*expected"):
        Selection(**({"score_threshold": 0.3} | wrong))  # type: ignore[arg-type]


def test_a_threshold_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(ConfigError, match="score_threshold: nan"):
        Selection(float("nan"))


def loop_average(boxes, scores, view, views, box, label):
    """One detection after the other, one view after the other."""
    found, values = [], []
    for kept, name in zip(box, label, strict=True):
        same = [k for k in range(len(boxes)) if float(iou(boxes[kept], boxes[k])) > 0.6]
        total = sum(float(scores[k, name]) for k in same)
        found.append(sum(float(scores[k, name]) * boxes[k] for k in same) / total)
        best = [max((float(scores[k, name]) for k in same if view[k] == one), default=0.0) for one in range(views)]
        values.append(sum(best) / views)
    return np.array(found), np.array(values)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_views_are_averaged_as_in_a_loop(seed: int, views: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (40, 2))
    boxes = np.concatenate((corner, corner + rng.uniform(15, 25, (40, 2))), 1)
    scores, view = rng.random((40, 2)), rng.integers(0, views, 40)
    view[view == views - 1] = 0  # a view that sees nothing
    box, label = nms_per_class(boxes, scores, Selection(0.1))
    found, values = average_views(boxes, scores, view, views, box, label)
    expected, expected_values = loop_average(boxes, scores, view, views, box, label)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(values, expected_values, rtol=1e-12)


def views_of(seen: list[tuple[tuple[float, float, float, float], float]], count: int) -> Predictions:
    """Predictions of one class: (box, score) of each."""
    boxes = np.array([box for box, _ in seen], np.float32)[None]
    return Predictions(boxes, np.array([[score for _, score in seen]], np.float32), np.ones((1, count, 1), np.float32))


@pytest.mark.parametrize("threshold, left", [(0.1, [0.6, 0.2]), (0.3, [0.6]), (0.65, [])])
def test_the_score_of_an_average_does_not_depend_on_the_threshold(threshold: float, left: list[float]) -> None:
    # The first object is seen by both views, at .8 and .4; the second by the second view alone, at .4.
    seen = views_of([((10, 10, 30, 30), 0.8), ((0, 0, 1, 1), 0), ((12, 10, 32, 30), 0.4), ((60, 60, 80, 80), 0.4)], 4)
    [found] = postprocess(seen, [(100, 100)], (100, 100), "stretch", ("cell",), Selection(threshold, views=2))
    np.testing.assert_allclose(found.scores, left, rtol=1e-6)
    if left:
        np.testing.assert_allclose(found.boxes[0], [10 + 2 / 3, 10, 30 + 2 / 3, 30], rtol=1e-6)
