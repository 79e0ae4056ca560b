"""Tests of lookonce.model.anchors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import GOLDEN, SHARED, needs_shared
from lookonce.data.anchors import cluster_anchors, shapes_in_cells
from lookonce.data.dataset import Dataset, Record, pack
from lookonce.data.read import read_dataset
from lookonce.errors import ConfigError, UserError
from lookonce.model import boxes as geometry
from lookonce.model.anchors import SAMPLE, Anchors, anchors_by_head, cluster, measure
from lookonce.model.layers import PlacedHead, Region
from lookonce.model.resize import boxes_to_input


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "seed_anchors_bccd.json").read_text())


@pytest.fixture(scope="module")
def blood_cells():
    """[4886, 2] width and height of the BCCD boxes as fractions of their images, VOC numbers without the + 1."""
    return np.load(GOLDEN / "bccd_wh.npz")["wh"] / np.array((640, 480))


def made(*images: tuple[tuple[int, int], list[tuple[float, float, float, float]]]) -> Dataset:
    """A data set of (size, boxes) in memory; every other object is difficult."""
    records = [
        Record(Path(f"{i}.jpg"), size, np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64),
               np.arange(len(boxes)) % 2 == 1)
        for i, (size, boxes) in enumerate(images)
    ]  # fmt: skip
    return pack("made", Path("made"), ("thing",), records)


def best_iou(wh: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The oracle: IoU of the shapes laid on one corner as whole boxes, by boxes.iou. [N]."""
    a, b = (torch.cat((torch.zeros(len(x), 2), torch.from_numpy(np.asarray(x, np.float32))), 1) for x in (wh, anchors))
    return geometry.iou(a[:, None], b).amax(1).numpy()


@pytest.mark.parametrize("centre", ["mean", "median"])
@pytest.mark.parametrize("k", range(1, 11))
def test_against_the_blogs_own_clusters_on_blood_cells(golden, blood_cells, k, centre):
    found = cluster(blood_cells, k, centre, restarts=20, seed=0)
    centroids, mean_iou = np.array(found.wh), found.mean_iou
    wanted = golden[f"k1_{centre}_box"]["mean_iou"] if k == 1 else golden[f"kmeans_{centre}"][str(k)]["best_mean_iou"]
    assert mean_iou > wanted - 0.001
    np.testing.assert_allclose(mean_iou, best_iou(blood_cells, centroids).mean(), atol=1e-5)


@pytest.mark.parametrize("centre", ["mean", "median"])
def test_one_cluster_is_the_mean_or_the_median_box(golden, blood_cells, centre):
    np.testing.assert_allclose(cluster(blood_cells, 1, centre).wh, [golden[f"k1_{centre}_box"]["wh"]], atol=1e-6)


def test_the_blogs_centroids_measure_what_the_blog_says(golden, blood_cells):
    for rule in ("kmeans_mean", "kmeans_median"):
        for found in golden[rule].values():
            mean_iou = measure(blood_cells, np.array(found["centroids_wh"])).mean_iou
            assert mean_iou == pytest.approx(found["best_mean_iou"], abs=1e-5)


@needs_shared
def test_the_golden_shapes_are_those_of_the_annotations(blood_cells):
    """A record holds [xmin - 1, ymin - 1, xmax, ymax], so its sides are a pixel longer than VOC's differences."""
    boxes = read_dataset(SHARED / "data" / "bccd").boxes
    sides = np.sort((boxes[:, 2:] - boxes[:, :2] - 1) / (640, 480), 0)
    assert len(boxes) == 4886
    np.testing.assert_allclose(sides, np.sort(blood_cells, 0), atol=1e-6)


def test_overlap_is_the_one_of_boxes_shape_iou():
    rng = np.random.default_rng(0)
    wh, anchors = rng.uniform(0.1, 9, (500, 2)), rng.uniform(0.1, 9, (7, 2))
    overlap = geometry.shape_iou(torch.from_numpy(wh)[:, None], torch.from_numpy(anchors))  # [500, 7] float64
    found = measure(wh, anchors)
    assert found.mean_iou == pytest.approx(overlap.amax(1).mean().item(), abs=1e-6)
    assert found.recall == pytest.approx((overlap.amax(1) >= 0.5).double().mean().item())
    assert found.counts == tuple(np.bincount(overlap.argmax(1).numpy(), minlength=7))


def test_separate_clusters_are_found():
    rng = np.random.default_rng(1)
    truth = np.array(((1.0, 1), (2, 6), (6, 2), (9, 9)))
    middle = truth.repeat((500, 20, 90, 5), 0)
    wh = middle * rng.uniform(0.97, 1.03, middle.shape)
    for centre in ("mean", "median"):
        found = cluster(wh, 4, centre)
        centroids = np.array(found.wh)
        np.testing.assert_allclose(centroids[np.lexsort(centroids.T)], truth[np.lexsort(truth.T)], rtol=0.03)
        assert found.mean_iou > 0.96


def test_more_boxes_than_the_sample_give_what_all_of_them_would():
    rng = np.random.default_rng(2)
    wh = np.exp(rng.normal((0.5, 1.0), 0.7, (3 * SAMPLE, 2)))
    found = cluster(wh, 5)
    assert found.mean_iou == pytest.approx(best_iou(wh, np.array(found.wh)).mean(), abs=1e-5)
    halves = [np.array(cluster(half, 5).wh) for half in (wh[:SAMPLE], wh[SAMPLE : 2 * SAMPLE])]
    assert found.mean_iou > max(best_iou(wh, other).mean() for other in halves) - 0.001


def test_a_rare_shape_counts_where_every_shape_needs_its_own_anchor():
    wh = np.concatenate((np.full((2 * SAMPLE, 2), 3.0), ((1.0, 1.0),), ((9.0, 1.0),)))
    found = cluster(wh, 3)
    assert found.wh in (((1, 1), (3, 3), (9, 1)), ((1, 1), (9, 1), (3, 3)))
    assert found.mean_iou == 1


@pytest.mark.parametrize("centre", ["mean", "median"])
def test_no_anchor_is_left_without_boxes_however_often_boxes_repeat(centre):
    rng = np.random.default_rng(3)
    shapes = rng.uniform(0.5, 9, (12, 2))
    for seed in range(5):
        wh = shapes[np.minimum(rng.geometric(0.4, 400) - 1, 11)]
        for k in range(1, len(np.unique(wh, axis=0)) + 1):
            found = cluster(wh, k, centre, restarts=3, seed=seed)
            assert np.isfinite(found.wh).all()
            assert min(found.counts) > 0
            assert found.mean_iou == pytest.approx(best_iou(wh, np.array(found.wh)).mean())
        assert found.mean_iou == pytest.approx(1), "as many anchors as shapes fit perfectly"


def test_the_seed_decides_and_the_input_is_left_alone(blood_cells):
    before = blood_cells.copy()
    first, again = cluster(blood_cells, 6, seed=4), cluster(blood_cells, 6, seed=4)
    assert first == again
    assert np.array_equal(before, blood_cells)


def test_the_unit_does_not_matter(blood_cells):
    small, large = (np.array(cluster(wh, 4).wh) for wh in (blood_cells, blood_cells * 64))
    np.testing.assert_allclose(small * 64, large, rtol=1e-5)


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [416, (320, 608)])
def test_shapes_are_those_of_the_boxes_in_the_network_s_input(mode, size):
    """The oracle is the resize that detection uses."""
    images = [((640, 480), [(0, 0, 100, 200), (5, 6, 25, 16)]), ((30, 40), []), ((100, 333), [(10, 10, 90, 300)])]
    input_size = (size, size) if isinstance(size, int) else size
    wanted = []
    for image, boxes in images:
        inside = boxes_to_input(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), image, input_size, mode)
        wanted.append((inside[:, 2:] - inside[:, :2]) / 32)
    np.testing.assert_allclose(shapes_in_cells(made(*images), size, mode), torch.cat(wanted), rtol=1e-6)


def test_anchors_of_a_data_set_are_cells_by_growing_area_with_difficult_objects_counted():
    boxes = [(0.0, 0.0, 32.0, 64.0), (8.0, 8.0, 200.0, 104.0), (50.0, 50.0, 82.0, 114.0)]
    found = cluster_anchors(made(((416, 416), boxes), ((416, 416), [])), 2)
    assert found.wh == ((1, 2), (6, 3))
    assert found.counts == (2, 1)
    assert found.mean_iou == found.recall == 1


def test_a_data_set_without_boxes_is_refused():
    with pytest.raises(UserError, match="no boxes on its 2 images"):
        cluster_anchors(made(((416, 416), []), ((50, 60), [])))


def test_there_are_no_more_anchors_than_distinct_shapes(caplog):
    wh = np.array(((1.0, 2.0),) * 40 + ((3.0, 3.0),) * 2)
    with caplog.at_level("INFO", "lookonce"):
        found = cluster(wh, 3)
    assert found.wh == ((1, 2), (3, 3))
    assert found.mean_iou == 1
    assert caplog.messages == ["anchors: 2 instead of 3, since the 42 boxes have 2 distinct shapes"]
    with pytest.raises(UserError, match=r"^anchors: 0; expected at least 1$"):
        cluster(wh, 0)


def test_sizes_that_differ_by_rounding_are_one_shape(caplog):
    wh = np.array((2.0, 3.0)) + np.random.default_rng(0).uniform(-1e-5, 1e-5, (50, 2))
    with caplog.at_level("INFO", "lookonce"):
        found = cluster(wh, 5)
    np.testing.assert_allclose(found.wh, [[2, 3]], atol=1e-4)
    assert caplog.messages == ["anchors: 1 instead of 5, since the 50 boxes have 1 distinct shape"]


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_sizes_that_are_none_are_refused(wrong):
    with pytest.raises(UserError, match="expected sizes above 0"):
        cluster(np.array(((1.0, 2.0), (3.0, wrong))), 1)


def test_settings_out_of_range_are_refused():
    data = made(((416, 416), [(0, 0, 32, 64)]))
    with pytest.raises(UserError, match="size: 400 x 400; expected positive multiples of the stride, 32"):
        cluster_anchors(data, 1, size=400)
    with pytest.raises(UserError, match="'crop'; expected one of letterbox, stretch"):
        cluster_anchors(data, 1, resize="crop")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'mode'; expected one of mean, median"):
        cluster_anchors(data, 1, centre="mode")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no boxes to cluster"):
        cluster(np.zeros((0, 2)), 1)


def test_one_line_shows_anchors():
    found = Anchors(((1.0, 2.0), (3.25, 4.0)), 0.75, 0.9, (3, 4))
    assert repr(found) == "Anchors(2: 1.00 x 2.00, 3.25 x 4.00 cells; mean IoU 0.750, recall 0.900)"


def test_the_finest_head_gets_the_smallest_anchors_in_its_own_cells():
    wh = ((0.5, 0.5), (1.0, 2.0), (3.0, 3.0))  # cells of 32 px
    heads = [PlacedHead(Region(((1.0, 1.0),), 2), stride) for stride in (32, 16)]
    assert anchors_by_head(wh, 32, heads) == [((3.0, 3.0),), ((1.0, 1.0), (2.0, 4.0))]
    assert anchors_by_head(wh, 32, heads[:1]) == [wh]
    with pytest.raises(ConfigError, match="anchors: 1; expected at least 2, one for each head"):
        anchors_by_head(wh[:1], 32, heads)
