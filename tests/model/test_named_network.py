"""A network is named in three ways, and each gives the same layers."""

import pytest

from lookonce.errors import UserError
from lookonce.model import zoo
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.model_file import Model, save_model
from lookonce.model.named_network import named_network
from lookonce.model.network import Network
from lookonce.model.sizes import heads_of

ANCHORS = tuple((n / 4, n / 3) for n in range(1, 7))


def test_a_name_a_cfg_and_a_model_file_are_the_same_network(tmp_path):
    layers = zoo.detector("yolov3_tiny", 3, ANCHORS)
    (tmp_path / "net.cfg").write_text(write_cfg(Cfg(layers, 96, 96)))
    labels = ("a", "b", "c")
    save_model(Model(Network(layers), labels, (96, 96)), tmp_path / "model.safetensors")
    places = ["yolov3_tiny", str(tmp_path / "net.cfg"), str(tmp_path / "model.safetensors")]
    first, *others = [heads_of(named_network(place, 5, ANCHORS).layers) for place in places]
    assert [head.layer.classes for head in first] == [5, 5]
    assert all(heads == first for heads in others)
    assert named_network(places[2], 3).layers == named_network(places[1], 3).layers


def test_a_known_network_has_its_published_anchors():
    assert named_network("yolov4_tiny", 80).layers == zoo.detector("yolov4_tiny", 80, zoo.TINY_ANCHORS)


@pytest.mark.parametrize(
    ("name", "message"), [("yolov3_tinny", "yolov3_tiny"), ("none.cfg", "none.cfg"), ("none.safetensors", "no such")]
)
def test_what_is_not_there_is_one_line(name, message):
    with pytest.raises(UserError, match=message):
        named_network(name, 3)
