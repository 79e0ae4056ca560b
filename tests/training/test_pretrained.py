"""Tests of lookonce.training.pretrained."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lookonce import train
from lookonce.errors import UserError
from lookonce.model.darknet.weights import Header, write_weights
from lookonce.model.heads import decode
from lookonce.model.layers import Conv, Region, Yolo
from lookonce.model.model_file import Model, load_model, save_model
from lookonce.model.network import DARKNET, TRAINED_HERE, Network
from lookonce.training.config import RunConfig
from lookonce.training.pretrained import check_classes, start_from
from lookonce.training.start import read_start
from sets import nano, two_heads

ANCHORS = ((1.0, 1.0), (1.6, 1.6))
SMALL = {"network": "nano", "size": 64, "epochs": 1, "batch_size": 4, "anchors": 2, "keep_checkpoints": True}


def model_file(folder, layers, seen=0, sigma=TRAINED_HERE):
    torch.manual_seed(3)
    network = Network(layers)
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            convolution.norm.sigma = sigma
            convolution.norm.running_var.uniform_(0.5, 2)
    model = Model(network, ("blue", "red"), (64, 64), "letterbox", (), seen, {})
    save_model(model, folder / "m.safetensors")
    return folder / "m.safetensors", network


def test_every_layer_that_fits_is_loaded_and_the_last_starts_random(tmp_path):
    file, source = model_file(tmp_path, nano(2, ANCHORS), sigma=DARKNET)
    network = Network(nano(3, ANCHORS))
    rows = start_from(network, file, frozen=4, input_size=(96, 96))
    assert [row.status for row in rows] == ["loaded"] * 6 + ["random: last layer"]
    assert [row.frozen for row in rows] == [True] * 4 + [False] * 3
    for ours, theirs in list(zip(network.convolution_list(), source.convolution_list(), strict=True))[:-1]:
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    sigmas = [c.norm.sigma for c in network.convolution_list()[:-1]]
    assert sigmas == [DARKNET] * 4 + [TRAINED_HERE] * 2
    last = network.convolution_list()[-1].conv
    assert last.weight.detach().std().item() == pytest.approx(1 / 9, rel=0.1)  # 3 x 3 cells at 96 px


def test_the_last_layer_of_each_head_is_random_for_the_cells_of_its_map(tmp_path):
    file, source = model_file(tmp_path, two_heads(2, ANCHORS, ANCHORS))
    network = Network(two_heads(3, ANCHORS, ANCHORS))
    rows = start_from(network, file, frozen=0, input_size=(96, 96))
    assert [row.status for row in rows] == [*["loaded"] * 6, "random: last layer", "loaded", "random: last layer"]
    deviations = [last.weight.detach().std().item() for last in network.head_convolutions()]
    assert deviations == pytest.approx([1 / 9, 1 / 36], rel=0.1)
    kept = start_from(Network(source.layers), file, 0, (96, 96), ("blue", "red"), "keep")
    assert [row.status for row in kept] == ["loaded"] * 9
    with pytest.raises(UserError, match=r"last layer cannot be kept .random: the file has 14 x 32 x 1 x 1"):
        start_from(Network(two_heads(2, ANCHORS, ANCHORS[:1])), file, 0, (96, 96), ("blue", "red"), "keep")


def test_the_last_layer_is_loaded_with_keep_last(tmp_path):
    file, source = model_file(tmp_path, nano(2, ANCHORS))
    network = Network(nano(2, ANCHORS))
    assert [row.status for row in start_from(network, file, 0, (96, 96), ("blue", "red"), "keep")] == ["loaded"] * 7
    theirs = source.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in network.state_dict().items())


def small(head):
    """Two convolutions and a head."""
    return Conv(8, stride=8), Conv(head.channels, size=1, batch_normalize=False, activation="linear"), head


def regions(classes, anchors):
    return small(Region(anchors, classes))


def yolos(classes, anchors):
    return small(Yolo(tuple((w * 8, h * 8) for w, h in anchors), tuple(range(len(anchors))), classes))


@pytest.mark.parametrize("made", [regions, yolos])
def test_a_matched_head_predicts_the_same_boxes_with_other_anchors_and_classes(made, tmp_path):
    file, source = model_file(tmp_path, made(2, ANCHORS))  # blue, red
    network = Network(made(3, ((0.5, 2.0), (3.0, 1.0))))
    rows = start_from(network, file, 0, (64, 64), ("Green", "Reds", "yellow"), "match")
    assert [row.status for row in rows] == ["loaded", "boxes, objectness and 1 of 3 classes loaded"]
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raws = [each.eval()(image) for each in (source, network)]
    theirs, ours = (decode(raw, each.heads) for raw, each in zip(raws, (source, network), strict=True))
    torch.testing.assert_close(ours.boxes, theirs.boxes, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(ours.objectness, theirs.objectness)
    red, their_red = raws[1][0][:, 6::8], raws[0][0][:, 6::7]  # rows: x y w h objectness, then classes
    torch.testing.assert_close(red, their_red)
    if made is yolos:
        torch.testing.assert_close(ours.class_prob[..., 0], torch.full_like(ours.objectness, 1 / 4), atol=0.02, rtol=0)


def test_a_head_with_another_number_of_anchors_is_not_matched(tmp_path):
    file, _ = model_file(tmp_path, regions(2, ANCHORS))
    for layers in (regions(2, ANCHORS[:1]), yolos(2, ANCHORS)):
        rows = start_from(Network(layers), file, 0, (64, 64), ("blue", "red"), "match")
        assert rows[-1].status == "random: last layer"


def test_finetune_is_the_recipe_of_a_training_from_weights(run, squares, tmp_path, caplog):
    caplog.set_level("INFO", "lookonce")
    more = train(squares, weights=run, out=tmp_path, epochs=1, batch_size=4, learning_rate=1e-9)
    config = RunConfig.from_yaml((more / "config.yaml").read_bytes(), more)
    assert (config.settings.match_classes, config.settings.size, config.weights) == (True, 96, str(run))
    ours, theirs = load_model(more), load_model(run)
    for name, value in ours.network.head_convolutions()[0].state_dict().items():
        torch.testing.assert_close(value, theirs.network.head_convolutions()[0].state_dict()[name])
    assert ours.training["start"]["name"] == str(run)
    assert "starts from" in caplog.text
    assert "random numbers" not in caplog.text
    assert ours.training["start"] == read_start(more)


def test_without_weights_the_header_says_how_to_get_them(squares, tmp_path, caplog):
    caplog.set_level("INFO", "lookonce")
    train(squares, out=tmp_path, **SMALL)
    assert caplog.text.count("with --weights coco it starts from a network that knows the 80 classes") == 1
    with pytest.raises(UserError, match="recipe: finetune needs pretrained weights; give --weights coco"):
        train(squares, recipe="finetune", out=tmp_path)


def test_keep_last_continues_a_detector(run, squares, tmp_path, caplog):
    caplog.set_level("INFO", "lookonce")
    given = {**SMALL, "size": 96, "network": str(run / "network.cfg"), "anchors": 0, "learning_rate": 1e-9}
    more = load_model(train(squares, weights=run, keep_last=True, out=tmp_path, **given))
    ours, theirs = (model.network.convolution_list()[-1].conv for model in (more, load_model(run)))
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)  # no objectness prior either


@pytest.mark.parametrize("given, message", [
    ({}, "keep-last: no layer to keep"),
    ({"weights": "m.safetensors"}, "keep-last: the last layer cannot be kept .random: the file has 21 x 48 x 1 x 1"),
])  # fmt: skip
def test_a_last_layer_that_is_not_there_cannot_be_kept(given, message, squares, tmp_path):
    model_file(tmp_path, nano(2, (*ANCHORS, (2.0, 2.0))))
    weights = {name: tmp_path / value for name, value in given.items()}
    with pytest.raises(UserError, match=message):
        train(squares, keep_last=True, out=tmp_path / "runs", **weights, **SMALL)


def test_layers_of_another_shape_start_random_and_say_why(tmp_path):
    layers = list(nano(2, ANCHORS))
    layers[2] = replace(layers[2], filters=24)
    file, _ = model_file(tmp_path, tuple(layers))
    status = [row.status for row in start_from(Network(nano(2, ANCHORS)), file, 0, (64, 64))]
    assert status[:3] == ["loaded", "random: the file has 24 x 8 x 3 x 3", "random: the file has 16 x 24 x 3 x 3"]
    assert status[3:] == ["loaded"] * 3 + ["random: last layer"]


def test_a_file_of_which_nothing_fits_is_refused(tmp_path):
    layers = tuple(replace(x, filters=x.filters + 1) if isinstance(x, Conv) and x.batch_normalize else x
                   for x in nano(2, ANCHORS))  # fmt: skip
    file, _ = model_file(tmp_path, layers)
    with pytest.raises(UserError, match="none of its 7 convolutions fits this network"):
        start_from(Network(nano(2, ANCHORS)), file, 0, (64, 64))


def darknet_file(path, layers, seen=32_013_312):
    """A file of Darknet weights alone, of a network with random numbers; the network."""
    torch.manual_seed(3)
    network = Network(layers)
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            convolution.norm.sigma = DARKNET
    write_weights(path, network, Header(seen=seen))
    return network


def test_darknets_weights_without_a_cfg_start_the_same_network_with_other_classes(tmp_path, caplog):
    source = darknet_file(tmp_path / "n.weights", nano(80, ((1.0, 1.0),) * 5))
    network = Network(nano(3, ANCHORS))
    with caplog.at_level(logging.INFO, "lookonce"):
        rows = start_from(network, tmp_path / "n.weights", frozen=4, input_size=(96, 96))
    assert [row.status for row in rows] == ["loaded"] * 6 + ["random: last layer"]
    assert [c.norm.sigma for c in network.convolution_list()[:-1]] == [DARKNET] * 4 + [TRAINED_HERE] * 2
    for ours, theirs in list(zip(network.convolution_list(), source.convolution_list(), strict=True))[:-1]:
        assert torch.equal(ours.conv.weight, theirs.conv.weight)
    assert "the other model has seen 32013312" in caplog.text


def test_a_prefix_file_starts_the_layers_that_it_goes_to(tmp_path):
    layers = nano(2, ANCHORS)
    start = next(i for i, layer in enumerate(layers) if isinstance(layer, Conv) and layer.filters > 8) + 1
    source = darknet_file(tmp_path / "nano.conv.3", layers[:start])
    network = Network(layers)
    rows = start_from(network, tmp_path / "nano.conv.3", frozen=0, input_size=(64, 64))
    count = len(source.convolution_list())
    assert 0 < count < 6
    assert [row.status for row in rows[:count]] == ["loaded"] * count
    assert [row.status for row in rows[count:-1]] == ["random: the file has no such layer"] * (6 - count)
    assert torch.equal(network.convolution_list()[count - 1].conv.weight, source.convolution_list()[-1].conv.weight)


def test_weights_of_another_network_of_the_zoo_name_it(tmp_path):
    file = tmp_path / "tiny.weights"
    file.write_bytes(Header().pack() + bytes(4 * 11_237_145))  # yolov2-tiny.weights has so many numbers
    with pytest.raises(UserError, match=r"11,237,145 numbers.*they fit --network yolov2_tiny$"):
        start_from(Network(nano(2, ANCHORS)), file, 0, (64, 64))
    file.write_bytes(Header().pack() + bytes(4 * 1001))
    with pytest.raises(UserError, match=r"1,001 numbers.*put their \.cfg"):
        start_from(Network(nano(2, ANCHORS)), file, 0, (64, 64))


def test_weights_cut_off_within_a_number_are_refused(tmp_path):
    darknet_file(tmp_path / "n.weights", nano(2, ANCHORS))
    whole = (tmp_path / "n.weights").read_bytes()
    (tmp_path / "n.weights").write_bytes(whole + b"\0\0")
    with pytest.raises(UserError, match="2 of 4 bytes"):
        start_from(Network(nano(2, ANCHORS)), tmp_path / "n.weights", 0, (64, 64))


def test_a_run_starts_from_another_run_and_counts_from_0(run, squares, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        made = train(squares, out=tmp_path, weights=run, freeze="6", ema=0.0, **SMALL)
    assert "frozen" in caplog.text
    assert "fine-tuning counts images from 0; the other model has seen" in caplog.text
    before, after = load_model(run), load_model(made)
    assert after.seen == 24
    first = "convolutions.0.conv.weight"
    assert torch.equal(before.network.state_dict()[first], after.network.state_dict()[first])


def test_a_resumed_run_keeps_how_frozen_layers_read_their_variances(squares, tmp_path):
    file, _ = model_file(tmp_path, nano(2, ANCHORS), sigma=DARKNET)
    made = train(squares, out=tmp_path, name="r", weights=file, freeze="4", **SMALL)
    config = made / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1", "epochs: 2"))
    file.unlink()  # the checkpoint holds all that is needed
    train(resume=made)
    sigmas = [c.norm.sigma for c in load_model(made).network.convolution_list()[:-1]]
    assert sigmas == [DARKNET] * 4 + [TRAINED_HERE] * 2


@pytest.mark.parametrize("theirs, message", [
    (("red", "blue"), r"same classes in another order; give theirs: --labels red blue$"),
    (("blue", "dark red"), r"class 1 is 'dark red' in .*m\.safetensors and 'red' in the data; leave out --keep-last"),
    (("blue",), r"has 1 classes and the data has 2"),
])  # fmt: skip
def test_a_last_layer_of_other_classes_is_not_kept(theirs, message):
    check_classes(Path("m.safetensors"), ("blue", "red"), ("blue", "red"))
    with pytest.raises(UserError, match=message):
        check_classes(Path("m.safetensors"), theirs, ("blue", "red"))


@pytest.mark.parametrize("theirs", [(), ("class 0", "class 1")])
def test_classes_without_names_cannot_be_compared_which_is_said(theirs, caplog):
    check_classes(Path("m.weights"), theirs, ("blue", "red"))
    assert "m.weights: has no class names" in caplog.text
