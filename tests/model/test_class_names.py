"""Tests of lookonce.model.class_names."""

import pytest

from lookonce.model.class_names import same_classes


@pytest.mark.parametrize(("one", "other"), [
    ("dog", "Dogs"), ("traffic light", "traffic_lights"), ("aeroplane", "airplane"), ("tvmonitor", "tv"),
    ("diningtable", "dining table"), ("Potted Plants", "potted plant"), ("bus", "buses"), ("berry", "berries"),
    ("people", "person"), ("sofa", "couch"), ("bench", "benches"), ("mice", "mouse"), ("glass", "glasses"),
])  # fmt: skip
def test_one_class_under_two_names_is_the_same(one, other):
    assert same_classes((one,), (other,)) == same_classes((other,), (one,)) == [(0, 0)]


@pytest.mark.parametrize(("one", "other"), [("car", "cat"), ("class 1", "class 11"), ("dog", "hot dog"), ("", "x")])
def test_other_classes_are_not_the_same(one, other):
    assert same_classes((one,), (other,)) == same_classes((other,), (one,)) == []


def test_pairs_name_the_position_in_both_lists():
    assert same_classes(("cell", "Dogs", "Motorbike"), ("person", "motorcycle", "dog")) == [(1, 2), (2, 1)]
