"""Mirrors src/lookonce/training/memorising.py."""

import numpy as np
import pytest
import torch

from lookonce import read_dataset
from lookonce.commands.diagnose import BY_HEART, LOOK, memorise
from lookonce.errors import UserError
from lookonce.model.heads.region import LOSSES
from lookonce.model.model_file import Model
from lookonce.model.network import Network
from sets import nano

ANCHORS = ((1.0, 1.0), (1.7, 1.7))


def model(**recipe):
    return Model(Network(nano(2, ANCHORS)).eval(), ("blue", "red"), (96, 96), training={"recipe": recipe})


@pytest.fixture(scope="module")
def five(squares):
    return read_dataset(squares, "train").with_objects().select(np.arange(5))


@pytest.mark.parametrize("recipe", [
    {},
    {"loss": "keras_yolo2"},
    {"loss": "region", "match_iou": 1.0, "objectness_prior": 0.5, "optimizer": "sgd", "network": "gone"},
], ids=["quick", "blog", "paper"])  # fmt: skip
def test_five_images_are_learnt_by_heart_whatever_the_loss(recipe, five):
    given = model(**recipe)
    before = {name: value.clone() for name, value in given.network.state_dict().items()}
    value, taken = memorise(given, five, 300)
    assert value >= BY_HEART
    assert taken % LOOK == 0
    assert all(torch.equal(value, before[name]) for name, value in given.network.state_dict().items())


def test_the_same_five_give_the_same_number_and_the_callers_draws_stay(five):
    torch.manual_seed(5)
    first = memorise(model(), five, LOOK)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    model()
    assert torch.equal(drawn, torch.rand(1))
    assert first == memorise(model(), five, LOOK)


def test_a_loss_that_is_not_finite_is_told(five, monkeypatch):
    monkeypatch.setitem(LOSSES, "region_ciou", lambda raw, *_: {"total": raw.sum() * float("nan")})
    with pytest.raises(UserError, match="the loss on 5 images is nan in step 1"):
        memorise(model(), five, 3)
