"""The overfit check learns five images, reproduces its result, and leaves its inputs unchanged."""

import numpy as np
import pytest
import torch

from lookonce import read_dataset
from lookonce.errors import UserError
from lookonce.model.heads.region import LOSSES
from lookonce.model.model_file import Model
from lookonce.model.network import Network
from lookonce.training.overfit import INTERVAL, LEARNT, overfit
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
def test_five_images_are_learnt_with_every_loss(recipe, five):
    untrained = model(**recipe)
    before = {name: value.clone() for name, value in untrained.network.state_dict().items()}
    mean_ap, taken = overfit(untrained, five, 300)
    assert mean_ap >= LEARNT
    assert taken % INTERVAL == 0
    assert all(torch.equal(value, before[name]) for name, value in untrained.network.state_dict().items())


def test_the_result_is_reproducible_and_the_random_state_unchanged(five):
    torch.manual_seed(5)
    first = overfit(model(), five, INTERVAL)
    number = torch.rand(1)
    torch.manual_seed(5)
    model()
    assert torch.equal(number, torch.rand(1))
    assert first == overfit(model(), five, INTERVAL)


def test_a_loss_that_is_not_finite_is_an_error(five, monkeypatch):
    monkeypatch.setitem(LOSSES, "region_ciou", lambda raw, *_, **__: {"total": raw.sum() * float("nan")})
    with pytest.raises(UserError, match="the loss on 5 images is nan in step 1"):
        overfit(model(), five, 3)
