"""Tests of lookonce.deploy.prune."""

import numpy as np
import pytest
import torch

from lookonce.deploy.prune import MULTIPLE, blocks, choose, cut, made_of
from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, read_cfg, write_cfg
from lookonce.model.layers import Conv, MaxPool, Region, Reorg, Route, Shortcut
from lookonce.model.network import DARKNET, Network, folded
from sets import nano

ANCHORS = ((1.0, 1.0), (1.6, 1.6))


def small(layers):
    """A zoo's network with an eighth of its filters, 32 at least: the same routes and reorgs, quick to run."""
    end = len(layers) - 2
    return tuple(Conv(max(32, x.filters // 8), x.size, x.stride) if isinstance(x, Conv) and at < end else x
                 for at, x in enumerate(layers))  # fmt: skip


def joined(seed):
    """A random network whose routes meet a reorg, directly or through a convolution, and a pool."""
    draw = np.random.default_rng(seed)
    wide = [int(16 + 8 * n) for n in draw.integers(0, 4, 6)]
    join = (Route((2,)), Conv(wide[4], 1), Reorg(2)) if seed % 2 else (Route((2, 2)), Reorg(2))
    return (Conv(wide[0]), MaxPool(), Conv(wide[1]), Conv(wide[2], 1), MaxPool(2, 2), Conv(wide[3], activation="relu"),
            *join, Route((-1, 5)), MaxPool(2, 1), Conv(wide[5]), *zoo.head(2, ANCHORS))  # fmt: skip


def randomised(layers, seed=0):
    """A network with statistics and gammas of all sizes and signs, in evaluation."""
    torch.manual_seed(seed)
    network = Network(layers)
    for convolution in network.convolution_list():
        torch.nn.init.normal_(convolution.conv.weight, std=(2 / convolution.conv.weight[0].numel()) ** 0.5)
        if convolution.norm is not None:
            convolution.norm.weight.data.normal_()
            convolution.norm.bias.data.normal_(std=0.3)
            convolution.norm.running_mean.normal_(std=0.3)
            convolution.norm.running_var.uniform_(0.5, 2)
    return network.eval()


def silence(network, keep):
    """Make the channels that go 0 everywhere."""
    for index, stays in keep.items():
        norm = network.convolutions[str(index)].norm
        norm.weight.data[torch.from_numpy(~stays)] = 0
        norm.bias.data[torch.from_numpy(~stays)] = 0


def raw(network, side):
    with torch.inference_mode():
        return network(torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1)))[0]


NETWORKS = {
    "yolov2": small(zoo.yolov2(2, ANCHORS)),
    "yolov2_2016": small(zoo.yolov2_2016(2, ANCHORS)),
    "tiny": small(zoo.yolov2_tiny(2, ANCHORS)),
    **{f"joined {seed}": joined(seed) for seed in range(6)},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
def test_without_channels_that_are_0_a_network_is_the_same_function(name, odd):
    network = randomised(NETWORKS[name])
    keep = choose(network, 0.4)
    silence(network, keep)
    less = cut(network, keep)
    assert sum(~stays.all() for stays in keep.values()) >= len(keep) // 2
    side = network.stride * (3 if odd else 4)  # where a reorg reads an odd number of rows, its planes straddle channels
    torch.testing.assert_close(raw(less, side), raw(network, side), rtol=1e-4, atol=1e-5)


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
    limit = worth[order[int(share * len(order))]]
    gone = {one for one in order if worth[one] < limit}
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


def test_channels_before_a_reorg_go_in_its_blocks():
    whole = (Conv(16), Conv(24), Route((0, 1)), Reorg(2), *zoo.head(2, ANCHORS))
    assert blocks(whole) == {0: 4, 1: 4}
    across = (Conv(18), Conv(26), Conv(16), Route((0, 1, 2)), Reorg(2), *zoo.head(2, ANCHORS))
    assert blocks(across) == {2: 4}


def test_a_reorg_folds_its_map_once_for_each_place():
    assert made_of((Conv(16), Conv(24), Route((0, 1)), Reorg(2), Route((-1, 0))))[2:] == [
        (0, 1), (0, 1) * 4, (*(0, 1) * 4, 0)]  # fmt: skip


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


def test_a_network_whose_channels_cannot_be_followed_is_refused():
    network = Network((Conv(32), Conv(32), Shortcut(-2), *zoo.head(2, ANCHORS)))
    with pytest.raises(ConfigError, match=r"layer 2 \(shortcut\): pruning follows channels .* cannot be pruned"):
        choose(network, 0.5)
    with pytest.raises(ConfigError, match=r"layer 1 \(conv\)"):
        choose(Network((Conv(32), Conv(32, groups=32), *zoo.head(2, ANCHORS))), 0.5)
