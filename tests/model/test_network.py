"""Tests of lookonce.model.network."""

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce import load_darknet, save_darknet
from lookonce.errors import ConfigError
from lookonce.model import zoo
from lookonce.model.layers import AvgPool, Batchnorm, Conv, MaxPool, Reorg, Route
from lookonce.model.network import (
    DARKNET,
    TRAINED_HERE,
    BatchNorm,
    Convolution,
    Network,
    empty,
    folded,
)
from sets import nano

TINY = (Conv(8), MaxPool(), Conv(16), Route((-1, -2)), Reorg(2), Conv(4, size=1, batch_normalize=False))


def test_batch_norm_reads_small_variances_by_its_files_convention():
    norm = BatchNorm(2).eval()
    norm.running_var.copy_(torch.tensor([1e-6, 1.0]))
    norm.running_mean.copy_(torch.tensor([0.5, -1.0]))
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    centred = x - norm.running_mean[:, None, None]
    torch.testing.assert_close(norm(x), centred / (norm.running_var[:, None, None] + 1e-5).sqrt())
    here = norm(x)
    norm.sigma = DARKNET
    torch.testing.assert_close(norm(x), centred / (norm.running_var[:, None, None].sqrt() + 1e-6))
    assert (norm(x)[:, 0] / here[:, 0]).abs().min() > 3  # the convention shows


def test_batch_norm_in_training_is_torchs():
    mine, theirs = BatchNorm(3), torch.nn.BatchNorm2d(3)
    for seed in range(3):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(mine(x), theirs(x))
    torch.testing.assert_close(mine.running_var, theirs.running_var)
    torch.testing.assert_close(mine.eval()(x), theirs.eval()(x))


BINARY = (Conv(4), Batchnorm(), Conv(6, xnor=True), Conv(8, 3, 2, False, groups=2, xnor=True), Batchnorm(), Conv(8),
          Conv(8, dilation=2, share=5))  # fmt: skip


def with_statistics(layers):
    """A network whose batch norms and biases are not those of the start."""
    torch.manual_seed(2)
    network = Network(layers).eval()
    for norm in network.norms():
        for values in (norm.running_mean, norm.bias.data):
            values.normal_(std=0.3)
        norm.weight.data.normal_()
        norm.running_var.uniform_(0.3, 2)
        norm.sigma = DARKNET
    return network


def test_synchronized_batch_norm_of_two_processes_is_that_of_one():
    """Both halves of a batch run in one graph: their sum, with gradients, is an ordinary addition."""
    torch.manual_seed(0)
    images, weights = torch.randn(5, 3, 4, 6) * 3 + 2, torch.randn(5, 3, 4, 6)
    whole = BatchNorm(3)
    one = images.clone().requires_grad_()
    (whole(one) * weights).sum().backward()
    two = images.clone().requires_grad_()
    halves, sums = [two[:2], two[2:]], []
    for part in halves:  # what each process adds: sums and count, then squares about the common mean
        wide = part.float()
        sums.append(torch.cat((wide.sum((0, 2, 3)), wide.new_tensor([wide.numel() / 3]))))
    mean = (sums[0] + sums[1])[:3] / (sums[0] + sums[1])[3]
    squares = [((part - mean.view(1, 3, 1, 1)) ** 2).sum((0, 2, 3)) for part in halves]
    norms = [BatchNorm(3), BatchNorm(3)]
    found = []
    for norm, part in zip(norms, halves, strict=True):
        answers = iter([sums[0] + sums[1], squares[0] + squares[1]])
        norm.sum_over_processes = lambda values, answers=answers: next(answers)
        found.append(norm(part))
    (torch.cat(found) * weights).sum().backward()
    torch.testing.assert_close(two.grad, one.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(norms[0].weight.grad + norms[1].weight.grad, whole.weight.grad)
    torch.testing.assert_close(norms[1].running_mean, whole.running_mean)
    torch.testing.assert_close(norms[0].running_var, whole.running_var)


@torch.no_grad()
def test_binary_convolutions_count_signs_as_a_slow_loop_does():
    torch.manual_seed(3)
    binary = Convolution(4, Conv(8, 3, 2, False, "linear", groups=2, xnor=True))
    conv = binary.conv
    conv.bias.normal_()
    x = torch.randn(1, 4, 7, 5)
    weight = conv.weight.numpy()
    expected = np.zeros((8, 4, 3))
    for f, row, col in np.ndindex(expected.shape):
        mean = np.abs(weight[f]).mean()
        for c, ky, kx in np.ndindex(2, 3, 3):
            y, z = 2 * row + ky - 1, 2 * col + kx - 1
            if 0 <= y < 7 and 0 <= z < 5:  # cells beside the map count 0
                sign = 1 if x[0, f // 4 * 2 + c, y, z] > 0 else -1
                expected[f, row, col] += sign * (mean if weight[f, c, ky, kx] > 0 else -mean)
        expected[f, row, col] += conv.bias[f]
    np.testing.assert_allclose(binary(x)[0].numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_folding_keeps_binary_convolutions_and_batch_norms_of_their_own():
    network = with_statistics(BINARY)
    network.convolution_list()[1].conv.weight[0, 0] = 0  # a weight without sign, under a scale of any sign
    x = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(folded(network)(x)[0], network(x)[0], atol=1e-4, rtol=1e-4)


def test_a_batch_norm_of_its_own_is_frozen_with_the_layers_around_it():
    network = Network((*BINARY[:2], *BINARY[4:])).train()
    norms = list(network.batch_norms.values())
    for frozen, trains in ((0, [True, True]), (1, [False, False])):
        network.freeze(frozen)
        assert [norm.training for norm in norms] == [norm.weight.requires_grad for norm in norms] == trains


def test_folding_changes_nothing_but_rounding():
    network = Network(TINY).eval()
    for convolution in network.convolution_list()[:-1]:
        convolution.norm.running_var.uniform_(0.01, 2)
        convolution.norm.running_mean.normal_()
        convolution.norm.sigma = DARKNET
    x = torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(x)[0], network(x)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in zoo.DETECTORS if name != "yolov1"])  # has 0.8 GB
def test_every_detector_of_the_zoo_runs_on_any_multiple_of_its_stride(name):
    network = empty(zoo.detector(name, 3, zoo.VOC_ANCHORS)).eval()
    size = (448, 448) if name == "yolov1_tiny" else (64, 96)
    with torch.no_grad():
        found = network(torch.rand(1, 3, *size))
    expected = [(1, head.layer.channels, size[0] // head.stride, size[1] // head.stride) for head in network.heads]
    if name == "yolov1_tiny":
        expected = [(1, 49 * (3 + 2 * 5), 1, 1)]
        with pytest.raises(ConfigError, match="this network has one input size, that of its cfg"):
            network(torch.rand(1, 3, 64, 96))
    assert [raw.shape for raw in found] == expected


def test_an_input_off_the_stride_is_refused():
    network = Network(zoo.yolov2_tiny(3, zoo.VOC_ANCHORS))
    with pytest.raises(ConfigError, match="100 x 64 px; both sides must divide by 32"):
        network(torch.rand(1, 3, 64, 100))


def test_the_classifier_gives_logits():
    network = Network((Conv(8), MaxPool(), Conv(10, size=1, batch_normalize=False, activation="linear"), AvgPool()))
    assert network(torch.rand(2, 3, 20, 20))[0].shape == (2, 10, 1, 1)


def test_frozen_convolutions_keep_weights_and_statistics():
    network = Network(TINY)
    network.freeze(1)
    first, second = network.convolution_list()[:2]
    before = first.norm.running_mean.clone(), second.norm.running_mean.clone()
    network.train()(torch.rand(2, 3, 32, 32))[0].sum().backward()
    assert torch.equal(first.norm.running_mean, before[0])
    assert not torch.equal(second.norm.running_mean, before[1])
    assert first.conv.weight.grad is None
    assert second.conv.weight.grad is not None
    with pytest.raises(ConfigError, match="this network has 3"):
        network.freeze(4)


def test_a_grey_network_sees_darknets_luma_of_an_rgb_image():
    network = Network(TINY, channels=1).eval()
    assert network.convolution_list()[0].conv.weight.shape[1] == 1
    pixels = torch.randint(256, (1, 3, 32, 64), generator=torch.Generator().manual_seed(0))
    luma = [[(77 * r + 150 * g + 29 * b) / 256 for r, g, b in zip(*rows, strict=True)]
            for rows in zip(*pixels[0].tolist(), strict=True)]  # fmt: skip
    grey = torch.tensor(luma)[None, None] / 255
    with torch.no_grad():
        torch.testing.assert_close(network(pixels / 255), network(grey))
        torch.testing.assert_close(network(grey.expand(1, 3, 32, 64)), network(grey))
        torch.testing.assert_close(folded(network)(pixels / 255), network(grey), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.forward_head(network.forward_backbone(pixels / 255, 2), 2), network(grey))


def test_low_precision_ends_at_the_networks_edge():
    network = Network(TINY).to(torch.bfloat16).eval()
    assert network(torch.rand(1, 3, 32, 32).to(torch.bfloat16))[0].dtype == torch.float32


@pytest.fixture
def darknets(tmp_path):
    """A network read from Darknet's files."""
    torch.manual_seed(0)
    save_darknet(Network(nano(2, ((1.0, 1.0),))), tmp_path / "n.cfg", tmp_path / "n.weights")
    return load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights")


def test_a_network_of_darknets_trains_as_any_module(darknets):
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(darknets.parameters(), 0.05)
    losses = []
    for _ in range(6):
        loss = (darknets.train()(x)[0] - 1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad.isfinite().all() for parameter in darknets.parameters())
    darknets.train()(torch.zeros(4, 3, 64, 64))[0].sum().backward()  # no variance at all
    assert all(parameter.grad.isfinite().all() for parameter in darknets.parameters())


def test_training_alone_changes_how_darknets_variances_are_read(darknets, tmp_path):
    x = torch.rand(1, 3, 64, 64)
    before = darknets(x)[0]
    assert torch.equal(darknets.train().eval()(x)[0], before)
    norms = [convolution.norm for convolution in darknets.convolution_list()[:-1]]
    assert {norm.sigma for norm in norms} == {DARKNET}
    darknets.freeze(2)
    with torch.no_grad():
        darknets.train()(torch.rand(4, 3, 64, 64))
    assert [norm.sigma for norm in norms] == [DARKNET] * 2 + [TRAINED_HERE] * 4
    save_darknet(darknets.eval(), tmp_path / "t.cfg", tmp_path / "t.weights")
    torch.testing.assert_close(load_darknet(tmp_path / "t.cfg", tmp_path / "t.weights")(x), darknets(x))


def test_a_training_step_of_local_and_connected_layers_is_darknets():
    golden = np.load(GOLDEN / "dk_v1_step.npz")
    network = load_darknet(GOLDEN / "dk_v1_step.cfg", GOLDEN / "dk_v1_step.weights").train()
    x = torch.from_numpy(golden["input"]).requires_grad_()
    before = network._run_layers(x, {}, 0, 4)
    dropped = before * torch.from_numpy(golden["dropout_factor"])  # Darknet's draw
    head = network._run_layers(dropped, {}, 5, 7)
    np.testing.assert_allclose(head.detach().flatten(1), golden["head_input"], atol=1e-5)
    head.flatten(1).backward(-torch.from_numpy(golden["head_delta"]))
    modules = {**network.convolutions, **network.local_convolutions}
    for index in (0, 2, 3, 5, 6):
        module = modules[str(index)]
        weight, bias = (module.conv.weight, module.conv.bias) if str(index) in network.convolutions else (
            module.weight, module.bias)  # fmt: skip
        found, name = -weight.grad.flatten().numpy(), f"layer{index}_weight_updates"
        expected = golden[name].ravel() if name in golden else golden[f"{name}_value"]
        at = slice(None) if name in golden else golden[f"{name}_index"].astype(int)
        np.testing.assert_allclose(found[at], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(-bias.grad.numpy().ravel(), golden[f"layer{index}_bias_updates"].ravel(),
                                   rtol=1e-5, atol=1e-5)  # fmt: skip
    at = golden["input_delta_index"].astype(int)
    np.testing.assert_allclose(-x.grad.flatten().numpy()[at], golden["input_delta_value"], atol=1e-5)
