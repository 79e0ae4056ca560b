"""Tests of lookonce.model.channels."""

import pytest

from lookonce.model import zoo
from lookonce.model.channels import follow
from lookonce.model.layers import (
    Batchnorm,
    Connected,
    Conv,
    Layer,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    SpaceToDepth,
)

HEAD = zoo.head(1, ((1.0, 1.0),))
"""6 filters and a region layer."""


def groups(*layers: Layer) -> list[list[int]]:
    """The groups of the free channels of layers before HEAD, by number: those of the image are 0 to 2."""
    found = follow((*layers, *HEAD)).free_groups()
    return sorted(channels.tolist() for each in found.values() for channels in each)


@pytest.mark.parametrize(
    "layers, expected",
    [
        ([Conv(2), Conv(2)], [[3], [4], [5], [6]]),
        ([Conv(2), Conv(2), Shortcut(-2)], [[3, 5], [4, 6]]),
        ([Conv(2), Conv(3), Shortcut(-2)], [[3, 5], [4, 6], [7]]),
        ([Conv(3), Conv(2), Shortcut(-2)], [[3, 6], [4, 7], [5]]),
        ([Conv(2), Conv(2), Shortcut(-2), Conv(2), Shortcut(-2)], [[3, 5, 7], [4, 6, 8]]),
        ([Conv(1), Conv(2), Route((-2, -1)), Conv(3), Shortcut(-2)], [[3, 6], [4, 7], [5, 8]]),
        ([Conv(2), Conv(2, groups=2)], [[3, 5], [4, 6]]),
        ([Conv(2), Conv(4, groups=2)], [[3, 5, 6], [4, 7, 8]]),
        ([Conv(4), Conv(2, groups=2)], [[3, 4, 7], [5, 6, 8]]),
        ([Conv(4), Route((-1,), 2, 1)], [[3, 5], [4, 6]]),
        ([Conv(2), Conv(2), Sam(-2)], [[3, 5], [4, 6]]),
        ([Conv(2), Conv(2), ScaleChannels(-2)], [[3, 5], [4, 6]]),
        ([Conv(8), Reorg(2)], [[3, 4, 5, 6], [7, 8, 9, 10]]),
        ([Conv(2), SpaceToDepth(2)], [[3], [4]]),
        ([Conv(2), Conv(2), Conv(2, share=1)], [[3, 5, 7], [4, 6, 8]]),
        ([Conv(2), Connected(2, batch_normalize=True)], [[3], [4], [5], [6]]),
    ],
)
def test_channels_that_a_layer_combines_one_by_one_are_a_group(layers, expected):
    assert groups(*layers) == expected


@pytest.mark.parametrize(
    "layers",
    [
        [Conv(2, batch_normalize=False)],
        [Conv(2, activation="logistic")],
        [Connected(2)],
        [Conv(3), Shortcut(-1, "logistic")],
        [Conv(3, groups=3)],
        [Conv(2), Batchnorm()],
        [Conv(2), Conv(2, 1, batch_normalize=False, xnor=True)],
        [Conv(2), Conv(2, 1, batch_normalize=False), Shortcut(-2)],
        [Conv(2), Conv(2, 1, activation="logistic"), Sam(-2)],
    ],
)
def test_a_channel_that_is_not_0_or_goes_with_one_that_stays_is_not_free(layers):
    assert groups(*layers) == []


def test_what_any_head_reads_is_not_free():
    assert follow((Conv(6), HEAD[1], Conv(4), *HEAD)).free_groups().keys() == {(2,)}
    assert follow((Conv(4), Conv(6))).free_groups().keys() == {(0,)}


def test_a_reorg_lists_the_channels_that_it_reads_once_for_each_cell():
    made = follow((Conv(4), Conv(8), Route((0, 1)), Reorg(2), *HEAD)).makes
    assert made[3].tolist() == [*range(3, 15)] * 4


def test_layers_with_few_channels_keep_them_and_what_goes_with_them():
    layers = (Conv(4), Conv(2), Shortcut(-2), Conv(4), *HEAD)
    assert follow(layers, smallest=3).free_groups().keys() == {(0,), (3,)}
