"""Tests of lookonce.deploy.prune."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import SHARED, needs_shared
from lookonce import load_darknet
from lookonce.deploy.prune import MULTIPLE, choose, cut
from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.channels import follow
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.layers import (
    AvgPool,
    Batchnorm,
    Connected,
    Conv,
    Detection,
    Dropout,
    Head,
    Local,
    MaxPool,
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    SpaceToDepth,
    Upsample,
)
from lookonce.model.network import DARKNET, Network, folded
from lookonce.model.sizes import Shape, fitted, num_floats
from sets import nano

ANCHORS = ((1.0, 1.0), (1.6, 1.6))


def small(layers):
    """A zoo's network with an eighth of its filters, 32 at least: the same links between its layers, quick to run."""
    heads = {i - 1 for i, layer in enumerate(layers) if isinstance(layer, Head)}
    return tuple(replace(x, filters=max(32, x.filters // 8)) if isinstance(x, Conv) and i not in heads else x
                 for i, x in enumerate(layers))  # fmt: skip


def joined(seed):
    """A random network whose routes meet a reorg, directly or through a convolution, and a pool."""
    draw = np.random.default_rng(seed)
    wide = [int(16 + 8 * n) for n in draw.integers(0, 4, 6)]
    join = (Route((2,)), Conv(wide[4], 1), Reorg(2)) if seed % 2 else (Route((2, 2)), Reorg(2))
    return (Conv(wide[0]), MaxPool(), Conv(wide[1]), Conv(wide[2], 1), MaxPool(2, 2), Conv(wide[3], activation="relu"),
            *join, Route((-1, 5)), MaxPool(2, 1), Conv(wide[5]), *zoo.head(2, ANCHORS))  # fmt: skip


def bottleneck(wide, stride):
    """A block of MobileNetV2: wider, a depthwise convolution, narrow again."""
    return (Conv(wide, 1), Conv(wide, stride=stride, groups=wide), Conv(24, 1, activation="linear"))


HEAD = zoo.head(2, ANCHORS)
"""Reads the last map of each network below."""
LINKED = {
    "residual": (Conv(24), Conv(32), Conv(24), Shortcut(-3), Conv(40, 1), Conv(24), Shortcut(-3, "leaky"), Conv(32)),
    "narrow shortcut": (Conv(24), Conv(40), Shortcut(-2), Conv(24), Shortcut(-3, "relu"), Conv(32)),
    "depthwise": (Conv(24), *bottleneck(48, 1), Dropout(), Shortcut(-5), *bottleneck(64, 2), Conv(32, 1)),
    "depthwise of a route": (Conv(24), Conv(32), Route((-2, -1)), Conv(56, groups=56), Conv(112, groups=56), Conv(32)),
    "a batch norm of its own": (Conv(40), Conv(24), Batchnorm(), Conv(32), Conv(32)),
    "groups": (Conv(64), Conv(32, groups=8), Conv(64, 1, groups=4), Conv(32)),
    "half of a map": (Conv(64), Route((-1,), 2, 1), Conv(24), Route((-1, -3)), Route((-2, -1), 2, 0), Conv(32)),
    "scaled": (Conv(32), AvgPool(), Conv(16), Conv(32, 1, activation="relu"), ScaleChannels(0), Conv(32)),
    "attention": (Conv(32), Conv(32, 1, activation="relu"), Sam(-2), Conv(32)),
    "shared": (Conv(32), Conv(32), MaxPool(2, 1), Conv(32, stride=2, share=1), Upsample(), Route((1, -1)), Conv(32)),
    "space to depth": (Conv(32), Conv(24), Route((-1, -2)), SpaceToDepth(2), Conv(32)),
    "planes of two maps": (Conv(18), Conv(26), Conv(16), Route((0, 1, 2)), Reorg(2), Conv(32)),
}


def version_1(*last):
    """A small YOLOv1 of 64 x 64 px."""
    layers = (Conv(16), MaxPool(), Conv(24), MaxPool(4, 4), *last, Connected(4 * (2 + 5 * 2), "linear"))
    return fitted((*layers, Detection(2, 2, 2)), Shape(3, 64, 64))


def with_statistics(norm):
    """Draw everything that a batch norm has."""
    norm.weight.data.normal_()
    norm.bias.data.normal_(std=0.3)
    norm.running_mean.normal_(std=0.3)
    norm.running_var.uniform_(0.5, 2)


def randomised(layers, seed=0):
    """A network with statistics and gammas of all sizes and signs, in evaluation."""
    torch.manual_seed(seed)
    network = Network(layers)
    for convolution in network.convolution_list():
        torch.nn.init.normal_(convolution.conv.weight, std=(2 / convolution.conv.weight[0].numel()) ** 0.5)
        if convolution.norm is not None:
            with_statistics(convolution.norm)
    for norm in network.batch_norms.values():
        with_statistics(norm)
    return network.eval()


def silence(network, keep):
    """Make the channels that go 0 everywhere."""
    for index, stays in keep.items():
        if str(index) not in network.convolutions:  # one that has the weights of another
            continue
        norm = network.convolutions[str(index)].norm
        norm.weight.data[torch.from_numpy(~stays)] = 0
        norm.bias.data[torch.from_numpy(~stays)] = 0


def raw(network, side):
    draw = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        maps = copy.deepcopy(network).double()(torch.rand(2, 3, side, side, dtype=torch.float64, generator=draw))
    return torch.cat([each.flatten() for each in maps])


def blocks(layers):
    """The convolutions that can lose channels of a network without shortcuts, and how many of those go at once."""
    return {made_by[0]: len(made_by) for made_by in follow(layers, smallest=2 * MULTIPLE).free_groups()}


NETWORKS = {
    "yolov2": small(zoo.yolov2(2, ANCHORS)),
    "yolov2_2016": small(zoo.yolov2_2016(2, ANCHORS)),
    "tiny": small(zoo.yolov2_tiny(2, ANCHORS)),
    **{f"joined {seed}": joined(seed) for seed in range(6)},
}
EVERY = NETWORKS | {
    "yolov3": small(zoo.yolov3(2, ANCHORS * 2)),
    "yolov3_tiny": small(zoo.yolov3_tiny(2, ANCHORS)),
    "yolov4": small(zoo.yolov4(2, ANCHORS * 2)),
    "yolov4_tiny": small(zoo.yolov4_tiny(2, ANCHORS)),
    "version 1": version_1(Conv(16), MaxPool(), Dropout()),
    "version 1, local": version_1(Conv(16), MaxPool(), Local(4)),
    "version 1, two connected": version_1(Conv(24), Connected(32, batch_normalize=True)),
    **{name: (*layers, *HEAD) for name, layers in LINKED.items()},
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
def test_without_channels_that_are_0_a_network_is_the_same_function(name, odd):
    network = randomised(EVERY[name])
    keep = choose(network, 0.4)
    silence(network, keep)
    less = cut(network, keep)
    assert sum(~stays.all() for stays in keep.values()) >= len(keep) // 2
    side = network.stride * (3 if odd else 4)  # where a reorg reads an odd number of rows, its planes straddle channels
    side = 64 if name.startswith("version 1") else side
    torch.testing.assert_close(raw(less, side), raw(network, side), rtol=1e-6, atol=1e-9)


@needs_shared
@pytest.mark.parametrize("name", ["yolo-fastest-1.1", "MobileNetV2-YOLOv3-Nano-voc"])
def test_a_published_network_without_channels_that_are_0_is_the_same_function(name):
    network = load_darknet(SHARED / "weights" / f"{name}.cfg", SHARED / "weights" / f"{name}.weights")
    keep = choose(network, 0.3)
    silence(network, keep)
    less = cut(network, keep)
    assert num_floats(less.layers) < 0.8 * num_floats(network.layers)
    torch.testing.assert_close(raw(less, 96), raw(network, 96), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("fold, same", [(np.tile, True), (np.repeat, False)], ids=["reorg", "space_to_depth"])
@pytest.mark.parametrize("side", [96, 128])
@pytest.mark.parametrize("name", ["yolov2", "yolov2_2016"])
def test_the_order_of_the_reorg_is_darknets_and_no_other(name, side, fold, same):
    network = randomised(NETWORKS[name])
    keep = choose(network, 0.4)
    silence(network, keep)
    less = cut(network, keep)
    at = next(i for i, layer in enumerate(network.layers) if isinstance(layer, Reorg))
    before, reader = [i for i in keep if i < at and blocks(network.layers)[i] == 4][-1], str(at + 2)
    assert not keep[before].all()
    read = np.concatenate((fold(keep[before], 4), keep[at - 3 if name == "yolov2" else at - 2]))
    weight = network.convolutions[reader].conv.weight.data[torch.from_numpy(keep[at + 2])]
    less.convolutions[reader].conv.weight.data = weight[:, torch.from_numpy(read)]
    assert torch.allclose(raw(less, side), raw(network, side), rtol=1e-4, atol=1e-5) == same


def test_channels_before_a_reorg_that_do_not_go_in_blocks_change_the_function():
    network = randomised(NETWORKS["yolov2"])
    before = next(i for i, block in blocks(network.layers).items() if block == 4)
    keep = {before: np.arange(network.layers[before].filters) % 4 % 3 > 0}  # 1 and 2 of each four
    silence(network, keep)
    assert not torch.allclose(raw(cut(network, keep), 96), raw(network, 96), rtol=1e-3, atol=1e-3)


def slow_choice(network, share):
    """As choose, one channel at a time."""
    can = blocks(network.layers)
    worth = {}
    for index, block in can.items():
        gamma = network.convolutions[str(index)].norm.weight.tolist()
        for channel in range(len(gamma)):
            first = channel // block * block
            worth[index, channel] = round(sum(abs(g) for g in gamma[first : first + block]) / block, 12)
    order = sorted(worth, key=lambda one: (worth[one], -one[1]))
    kept_anyway = set()
    for index, block in can.items():
        own, least = [one for one in order if one[0] == index], 0
        while least < 0.25 * (1 - share) * (len(own) / block):
            least += 1
        kept_anyway |= set(own[-least * block :])
    limits = [worth[one] for one in order if one not in kept_anyway] + [math.inf] * len(kept_anyway)
    limit = limits[int(share * len(order))]
    gone = {one for one in order if worth[one] < limit and one not in kept_anyway}
    found = {}
    for index in can:
        own = [one for one in order if one[0] == index]
        left = [one for one in own if one not in gone]
        number = min(range(MULTIPLE, len(own) + 1, MULTIPLE), key=lambda n: (abs(n - len(left)), -n))
        found[index] = sorted(channel for _, channel in own[-number:])
    return found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_choice_is_that_of_a_slow_loop(name, share):
    network = randomised(NETWORKS[name], seed=5)
    found = {index: np.flatnonzero(stays).tolist() for index, stays in choose(network, share).items()}
    assert found == slow_choice(network, share)


def test_a_layer_keeps_a_quarter_of_its_share_though_all_of_its_channels_are_worth_little():
    network = randomised((Conv(64), Conv(64), *zoo.head(2, ANCHORS)))
    for at, scale in (("0", 0.01), ("1", 1.0)):
        network.convolutions[at].norm.weight.data = scale * torch.arange(1.0, 65)
    keep = choose(network, 0.5)
    assert np.flatnonzero(keep[0]).tolist() == [*range(56, 64)]  # a quarter of 1 - .5 of 64, the largest
    assert np.flatnonzero(keep[1]).tolist() == [*range(8, 64)]  # the rest of 64 of all 128


def test_every_layer_keeps_a_multiple_of_8_and_at_least_8():
    keep = choose(randomised(zoo.yolov2_tiny(2, ANCHORS)), 0.95)
    kept = [int(stays.sum()) for stays in keep.values()]
    assert all(number % 8 == 0 for number in kept)
    assert min(kept) == 8


def test_a_layer_from_which_nothing_goes_stays_whole():
    network = randomised((Conv(20), Conv(32), *zoo.head(2, ANCHORS)))
    network.convolutions["0"].norm.weight.data.fill_(9)
    assert choose(network, 0.2)[0].sum() == 20


def test_what_cannot_lose_channels_does_not():
    layers = (Conv(12), Conv(16), Conv(32, batch_normalize=False), Conv(24), Conv(40), Region(ANCHORS * 4, 0))
    assert blocks(layers) == {1: 1, 3: 1}


def test_a_cut_network_is_a_cfg_like_any_other():
    less = cut(randomised(NETWORKS["yolov2"]), choose(randomised(NETWORKS["yolov2"]), 0.5))
    assert read_cfg(write_cfg(Cfg(less.layers))).layers == less.layers


def test_variances_are_read_as_before():
    network = randomised(nano(2, ANCHORS))
    network.convolution_list()[2].norm.sigma = DARKNET
    assert cut(network, choose(network, 0.3)).convolution_list()[2].norm.sigma == DARKNET


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 30, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(share):
    with pytest.raises(ConfigError, match=r"ratio: .*; expected above 0 and below 1"):
        choose(randomised(nano(2, ANCHORS)), share)


def test_a_network_without_batch_norm_has_nothing_to_prune():
    with pytest.raises(ConfigError, match="nothing to prune"):
        choose(folded(randomised(nano(2, ANCHORS))), 0.3)
