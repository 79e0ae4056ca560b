"""Tests of lookonce.model.darknet.weights. Source of the headers: darknet/src/parser.c, load_weights_upto."""

import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from conftest import GOLDEN
from lookonce.model import zoo
from lookonce.model.darknet.weights import (
    Header,
    WeightsError,
    converted_variance,
    layers_of,
    read_header,
    read_weights,
    write_weights,
)
from lookonce.model.layers import Connected, Conv, MaxPool
from lookonce.model.network import DARKNET, TRAINED_HERE, BatchNorm, Network, Sigma
from lookonce.model.sizes import Shape, fitted, num_floats
from sets import nano, two_heads

ANCHORS = ((1.0, 2.0), (3.5, 0.5))
SMALL = (Conv(2, size=1), MaxPool(), Conv(3, batch_normalize=False, activation="linear"))


def filled(layers=SMALL, sigma=DARKNET):
    """A network of 0, 1, 2, ... in the file's order, and the bytes that Darknet's loop writes for it."""
    network = Network(layers)
    numbers = torch.arange(num_floats(layers), dtype=torch.float32)
    at = 0
    for convolution in network.convolution_list():
        norm = convolution.norm
        parts = [norm.bias, norm.weight, norm.running_mean, norm.running_var] if norm else [convolution.conv.bias]
        if norm:
            norm.sigma = sigma
        for part in (*parts, convolution.conv.weight):
            part.data.copy_(numbers[at : at + part.numel()].reshape(part.shape))
            at += part.numel()
    assert at == len(numbers)
    return network, struct.pack(f"<{at}f", *numbers.tolist())


HEADERS = [(Header(0, 2, 0, 5_000_000_123), 20), (Header(0, 1, 0, 32_013_312), 16), (Header(0, 2, 5, 1), 20),
           (Header(1, 0, 0, 7), 20), (Header(1001, 0, 0, 9), 16), (Header(0, 1001, 0, 9), 16)]  # fmt: skip


@pytest.mark.parametrize("header, length", HEADERS)
def test_the_file_is_a_header_and_the_numbers_in_darknets_order(header, length, tmp_path):
    network, body = filled(sigma=header.sigma)
    write_weights(tmp_path / "n.weights", network, header)
    content = (tmp_path / "n.weights").read_bytes()
    assert content[length:] == body
    found = Network(SMALL)
    assert read_weights(tmp_path / "n.weights", found) == header
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    write_weights(tmp_path / "again.weights", found, header)
    assert (tmp_path / "again.weights").read_bytes() == content


def complaint(tmp_path, content, layers=SMALL, upto=None):
    (tmp_path / "n.weights").write_bytes(content)
    network = Network(layers)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        read_weights(tmp_path / "n.weights", network, upto)
    assert "\n" not in str(error.value)
    return str(error.value), all(torch.equal(before[n], v) for n, v in network.state_dict().items())


HEAD = struct.pack("<3iQ", 0, 2, 0, 0)


@pytest.mark.parametrize("change, upto, message", [
    (lambda body: body[:-8], None,
     "69 numbers; the cfg needs 71; they end in layer 2 (convolutional), at 55 of 57; was it cut off, or"),
    (lambda body: body + b"\0" * 12, None, "74 numbers; the cfg needs 71; 3 are left over; was it cut off, or"),
    (lambda body: body[:-3], None, "70 numbers and 1 of 4 bytes; the cfg needs 71; they end in layer 2"),
    (lambda body: body + b"\0" * 4, None, "off by one: does the version in its header"),
    (lambda body: body[: 14 * 4], None, "they are exactly those of the first 1 layers: give layers=1"),
    (lambda body: body, 2, "layers=2 needs 14; 57 are left over; they are exactly those of the whole network"),
    (lambda body: body + bytes(19 * 4 * 2), None, "they fit filters=5 in layer 2, the last convolution"),
    (lambda body: body[:0], None, "0 numbers; the cfg needs 71; they end in layer 0"),
])  # fmt: skip
def test_a_wrong_length_says_how_many_where_and_why(change, upto, message, tmp_path):
    said, untouched = complaint(tmp_path, HEAD + change(filled()[1]), upto=upto)
    assert message in said
    assert untouched


@pytest.mark.parametrize("theirs, mine", [(20, 80), (80, 20), (1, 3)])
def test_weights_of_another_class_count_name_it(theirs, mine, tmp_path):
    write_weights(tmp_path / "a.weights", Network(nano(theirs, ANCHORS)), Header())
    said, _ = complaint(tmp_path, (tmp_path / "a.weights").read_bytes(), nano(mine, ANCHORS))
    assert f"they fit classes={theirs} (filters={2 * (5 + theirs)} in layer 11)" in said


def test_weights_of_several_heads_with_another_class_count_name_it(tmp_path):
    own, other = (two_heads(classes, ANCHORS, ANCHORS[:1]) for classes in (3, 20))
    write_weights(tmp_path / "a.weights", Network(other), Header())
    said, _ = complaint(tmp_path, (tmp_path / "a.weights").read_bytes(), own)
    assert "they fit classes=20 (filters=50 in layer 11, filters=25 in layer 15): use the cfg" in said
    assert layers_of(num_floats(other), own) == other[:-1]
    assert layers_of(num_floats(other) + 1, own) is None


@pytest.mark.parametrize("content, message", [
    (b"<!DOCTYPE html><html>" * 20, "a web page or a pointer to a file"),
    (b"version https://git-lfs.github.com/spec/v1\noid", "a web page or a pointer to a file"),
    (b"\0" * 11, "11 bytes; a .weights file starts with a header of 16 or 20"),
    (b"\0" * 15, "15 bytes"),
])  # fmt: skip
def test_what_is_no_weights_file_is_told(content, message, tmp_path):
    said, untouched = complaint(tmp_path, content)
    assert message in said
    assert untouched


def test_numbers_that_cannot_be_are_told(tmp_path):
    network, _ = filled()
    convolution = network.convolution_list()[0]
    convolution.norm.running_var[1] = -1
    write_weights(tmp_path / "a.weights", network, Header())
    said, _ = complaint(tmp_path, (tmp_path / "a.weights").read_bytes())
    assert "layer 0 (convolutional): a negative variance" in said
    convolution.conv.weight.data[0, 0] = float("nan")
    write_weights(tmp_path / "a.weights", network, Header())
    said, _ = complaint(tmp_path, (tmp_path / "a.weights").read_bytes())
    assert "layer 0 (convolutional): numbers that are not finite" in said


def test_layers_that_are_not_there_are_told(tmp_path):
    assert "layers=4; expected 1 to 3" in complaint(tmp_path, b"", upto=4)[0]
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        read_weights(tmp_path / "none.weights", Network(SMALL))


@pytest.mark.parametrize("sigma", [TRAINED_HERE, DARKNET, Sigma(1e-3, 0.0), Sigma(0.0, 1e-3)])
def test_the_variance_for_darknet_divides_by_the_same(sigma):
    norm = BatchNorm(1000)
    norm.sigma = sigma
    norm.running_var.copy_(10 ** torch.linspace(-12, 3, 1000))
    theirs = converted_variance(norm, DARKNET).double().sqrt() + 1e-6  # what Darknet computes
    mine = (norm.running_var.double() + sigma.inside).sqrt() + sigma.outside
    torch.testing.assert_close(theirs, mine, rtol=1e-6, atol=0)


def test_a_network_in_low_precision_is_written_in_full(tmp_path):
    network = Network(SMALL).to(torch.bfloat16)
    write_weights(tmp_path / "n.weights", network, Header())
    found = Network(SMALL)
    read_weights(tmp_path / "n.weights", found)
    assert torch.equal(found.convolution_list()[1].conv.weight, network.convolution_list()[1].conv.weight.float())


MEASURE = """
import sys
from pathlib import Path
from lookonce.model import zoo
from lookonce.model.darknet.weights import read_weights
from lookonce.model.network import empty
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
file, layers = Path(sys.argv[1]), zoo.yolov2_tiny(80, zoo.COCO_ANCHORS)
empty(layers)  # what torch imports at the first call does not count
before = peak()
network = empty(layers)
read_weights(file, network)
print((peak() - before) / file.stat().st_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak memory of one process")
def test_reading_takes_no_memory_beside_the_network(tmp_path):
    write_weights(tmp_path / "n.weights", Network(zoo.yolov2_tiny(80, zoo.COCO_ANCHORS)), Header())
    words = [sys.executable, "-c", MEASURE, str(tmp_path / "n.weights")]
    times = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    assert 0.8 < times < 1.3  # the network itself is 1


@pytest.mark.parametrize("file, numbers, fits, ends", [
    ("yolov2.weights", 50_983_561, "yolov2", Conv(425, 1, 1, False, "linear")),
    ("yolov2-voc.weights", 50_676_061, "yolov2", Conv(125, 1, 1, False, "linear")),
    ("yolov2-tiny.weights", 11_237_145, "yolov2_tiny", Conv(425, 1, 1, False, "linear")),
    ("yolov2-tiny-voc.weights", 15_867_885, "yolov2_tiny_voc", Conv(125, 1, 1, False, "linear")),
])  # fmt: skip
def test_a_published_file_fits_one_network_whatever_its_classes(file, numbers, fits, ends):
    found = {name: layers_of(numbers, zoo.detector(name, 3, zoo.VOC_ANCHORS)) for name in zoo.DETECTORS}
    assert [name for name, layers in found.items() if layers] == [fits]
    assert found[fits][-1] == ends


@pytest.mark.parametrize("file, size, layers, count", [
    ("darknet53.conv.74", 162_482_580, zoo.yolov3(3, zoo.YOLOV3_ANCHORS), 74),
    ("yolov4.conv.137", 170_038_676, zoo.yolov4(3, zoo.YOLOV4_ANCHORS), 137),
    ("yolov4-tiny.conv.29", 19_789_716, zoo.yolov4_tiny(3, zoo.TINY_ANCHORS), 29),
])  # fmt: skip
def test_published_prefixes_are_the_start_of_their_networks(file, size, layers, count):
    assert layers_of((size - 20) // 4, layers) == layers[:count]


@pytest.mark.parametrize("normalize", [True, False])
def test_connected_layers_store_their_statistics_last_and_old_files_transpose(normalize, tmp_path):
    layers = fitted((Conv(2, 1), Connected(4, "leaky", normalize)), Shape(3, 2, 1))
    network = Network(layers)
    connected = network.convolution_list()[1]
    write_weights(tmp_path / "n.weights", network, Header())
    write_weights(tmp_path / "t.weights", network, Header(1001, 3, 0, 77))
    skip = 2 * 3 + 2 * 4
    body, turned = (np.fromfile(tmp_path / f"{n}.weights", "<f4", offset=h)[skip:] for n, h in (("n", 20), ("t", 16)))
    weight = connected.conv.weight.detach().numpy()[:, :, 0, 0]  # [4, 4]
    np.testing.assert_array_equal(body[4:20].reshape(4, 4), weight)
    np.testing.assert_array_equal(turned[4:20].reshape(4, 4), weight.T)
    np.testing.assert_array_equal(np.delete(body, slice(4, 20)), np.delete(turned, slice(4, 20)))
    for name in ("n", "t"):
        found = Network(layers)
        read_weights(tmp_path / f"{name}.weights", found)
        assert torch.equal(found.convolution_list()[1].conv.weight, connected.conv.weight)


@pytest.mark.parametrize("file", ["dk_v1_connected", "dk_v1_connected_transposed"])
def test_both_orders_of_a_connected_layer_give_darknets_numbers(file):
    golden = np.load(GOLDEN / "dk_v1_connected.npz")
    network = Network((Connected(7, "leaky", True, 24), Connected(5, "linear", False, 7)), channels=2).eval()
    header = read_weights(GOLDEN / f"{file}.weights", network)
    assert header.seen == 77
    with torch.no_grad():
        found = network(torch.from_numpy(golden["input"])[None])[0].flatten()
    np.testing.assert_allclose(found, golden["connected1"], atol=1e-6)


def test_the_classifiers_prefix_is_the_first_23_layers():
    layers = zoo.yolov2(3, zoo.VOC_ANCHORS)
    assert layers_of(19_831_776, layers) == layers[:23]
    assert layers_of(num_floats(layers), layers) == layers
    assert layers_of(0, layers) is None


@pytest.mark.parametrize("version, wide", [
    ((0, 1, 0), False), ((0, 2, 0), True), ((0, 2, 5), True), ((1, 0, 0), True), ((0, 0, 9), False),
    ((1001, 2, 0), False), ((0, 1001, 0), False), ((999, 999, 0), True), ((1000, 0, 0), False),
])  # fmt: skip
def test_the_version_says_how_wide_seen_is(version, wide):
    data = struct.pack("<3iQ" if wide else "<3iI", *version, 123_456) + b"numbers"
    header = read_header(data)
    assert header == Header(*version, 123_456)
    assert header.length == (20 if wide else 16)
    assert header.pack() == data[: header.length]


def test_a_count_beyond_32_bits_takes_the_long_form():
    assert Header(0, 1, 0, 2**32 - 1).pack()[:12] == struct.pack("<3i", 0, 1, 0)
    assert read_header(Header(0, 1, 0, 2**32).pack()) == Header(0, 2, 0, 2**32)


def test_a_header_cut_short_is_no_header():
    with pytest.raises(struct.error):
        read_header(struct.pack("<3iI", 0, 2, 0, 0))
