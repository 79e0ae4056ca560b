"""Mirrors src/lookonce/training/transfer.py."""

import logging
from dataclasses import replace

import pytest
import torch

from lookonce import train
from lookonce.errors import UserError
from lookonce.layers import Conv
from lookonce.model_file import Model, load_model, save_model
from lookonce.network import DARKNET, TRAINED_HERE, Network
from lookonce.training.transfer import start_from
from sets import nano

ANCHORS = ((1.0, 1.0), (1.6, 1.6))
SMALL = {"network": "nano", "size": 64, "epochs": 1, "batch_size": 4, "anchors": 2}


def model_file(folder, layers, seen=0, sigma=TRAINED_HERE):
    torch.manual_seed(3)
    network = Network(layers)
    for convolution in network.convolution_list():
        if convolution.norm is not None:
            convolution.norm.sigma = sigma
            convolution.norm.running_var.uniform_(0.5, 2)
    model = Model(network, ("a", "b"), (64, 64), "letterbox", (), seen, {})
    save_model(model, folder / "m.safetensors")
    return folder / "m.safetensors", network


def test_every_layer_that_fits_is_taken_and_the_last_starts_anew(tmp_path):
    file, source = model_file(tmp_path, nano(2, ANCHORS), sigma=DARKNET)
    network = Network(nano(3, ANCHORS))
    rows = start_from(network, file, frozen=4)
    assert [row.came for row in rows] == ["taken"] * 6 + ["last: starts anew"]
    assert [row.frozen for row in rows] == [True] * 4 + [False] * 3
    for ours, theirs in list(zip(network.convolution_list(), source.convolution_list(), strict=True))[:-1]:
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())
    sigmas = [c.norm.sigma for c in network.convolution_list()[:-1]]
    assert sigmas == [DARKNET] * 4 + [TRAINED_HERE] * 2
    last = network.convolution_list()[-1].conv
    assert last.weight.detach().std().item() == pytest.approx(1 / 4, rel=0.1)  # 2 x 2 cells at 64 px


def test_layers_of_another_shape_start_anew_and_say_why(tmp_path):
    layers = list(nano(2, ANCHORS))
    layers[2] = replace(layers[2], filters=24)
    file, _ = model_file(tmp_path, tuple(layers))
    came = [row.came for row in start_from(Network(nano(2, ANCHORS)), file, 0)]
    assert came[:3] == ["taken", "anew: the file has 24 x 8 x 3 x 3", "anew: the file has 16 x 24 x 3 x 3"]
    assert came[3:] == ["taken"] * 3 + ["last: starts anew"]


def test_a_file_of_which_nothing_fits_is_told(tmp_path):
    layers = tuple(replace(x, filters=x.filters + 1) if isinstance(x, Conv) and x.batch_normalize else x
                   for x in nano(2, ANCHORS))  # fmt: skip
    file, _ = model_file(tmp_path, layers)
    with pytest.raises(UserError, match="none of its 7 convolutions fits this network's 7"):
        start_from(Network(nano(2, ANCHORS)), file, 0)


def test_a_run_starts_from_another_run_and_counts_anew(run, squares, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lookonce"):
        made = train(squares, out=tmp_path, weights=run, freeze="6", ema=0.0, **SMALL)
    assert "frozen" in caplog.text
    assert "fine-tuning counts pictures from 0: that model had seen" in caplog.text
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
