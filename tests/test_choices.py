"""Tests of lookonce.choices."""

from dataclasses import dataclass
from typing import Literal, get_args

import pytest

from lookonce.choices import check_types, choose, closest, device_name, literals, settle_names
from lookonce.commands.download import find
from lookonce.data.read import read_whole
from lookonce.errors import ConfigError
from lookonce.inference.backends import settings as backends
from lookonce.model import zoo
from lookonce.training.recipes import Optimizer, Settings, settings


@pytest.mark.parametrize("given, meant", [
    ("yolov2-tiny", "yolov2_tiny"), ("YOLOv2_Tiny", "yolov2_tiny"), ("YOLOV2TINY", "yolov2_tiny"), ("yolov2", "yolov2"),
    ("yolov2 2016", "yolov2_2016"),
])  # fmt: skip
def test_case_hyphen_and_underscore_do_not_matter(given, meant):
    assert choose(given, zoo.DETECTORS, "network") == meant


@pytest.mark.parametrize("given, said", [
    ("AdmW", "did you mean 'adamw'?"), ("adem", "did you mean 'adam'?"), ("lion", None), ("", None), (None, None),
    (3, None), (["adam"], None),
])  # fmt: skip
def test_another_name_is_refused_and_only_a_close_one_suggested(given, said):
    with pytest.raises(ConfigError) as error:
        choose(given, get_args(Optimizer), "optimizer")
    assert str(error.value).startswith(f"optimizer: {given!r}; expected one of sgd, adam, adamw, rmsprop")
    assert str(error.value).endswith(said or "rmsprop")


def test_what_is_not_close_is_not_suggested():
    assert closest("cat", ["data"]) is None
    assert closest("epoch", ["epochs", "steps"]) == "epochs"
    assert closest("yolo2", ["yolov2", "yolov2_tiny"]) == "yolov2"
    assert closest("yolov3", ["yolov2", "yolov2_tiny"]) is None


def test_the_words_of_an_annotation():
    assert literals(Literal["a", "b"]) == ("a", "b")
    assert literals(Literal["a", "b"] | None) == ("a", "b")
    assert literals(str | None) == literals(tuple[str, ...]) == ()


def test_a_record_settles_its_names_at_birth():
    @dataclass(frozen=True)
    class Record:
        way: Literal["one_cycle", "cosine"] = "cosine"
        free: str = "As-It-Is"

        def __post_init__(self):
            settle_names(self)

    assert Record("One-Cycle") == Record("one_cycle")
    assert Record().free == "As-It-Is"
    with pytest.raises(ConfigError, match="way: 'two'"):
        Record("two")


def test_every_name_in_python_may_be_spelt_as_one_likes(squares):
    given = Settings(network="YOLOv2-Tiny", optimizer="AdamW", schedule="One-Cycle", loss="Region", resize="Stretch",
                     freeze="All-But-Last", difficult="Train")  # fmt: skip
    assert (given.network, given.optimizer, given.schedule) == ("yolov2_tiny", "adamw", "one_cycle")
    assert (given.loss, given.resize, given.freeze, given.difficult) == ("region", "stretch", "all_but_last", "train")
    assert settings("Paper") == settings("paper")
    assert zoo.detector("YOLOv2-Tiny", 2, zoo.VOC_ANCHORS) == zoo.yolov2_tiny(2, zoo.VOC_ANCHORS)
    assert find("YOLOv2_tiny") is find("yolov2-tiny") is find("YOLOv2-tiny.weights")
    run = backends.Settings("OpenVINO", "CUDA:1", "BF16")
    assert (run.backend, run.device, run.precision) == ("openvino", "cuda:1", "bf16")
    assert read_whole(squares, format="VOC", policy="Clip").found.format == "voc"


@dataclass
class Options:
    count: int = 1
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] | None = None
    fast: bool = False


@pytest.mark.parametrize("given", [{}, {"rate": 1}, {"names": ("x",)}, {"names": ()}, {"pair": (1, 2)}, {"fast": True}])
def test_values_of_the_annotated_type_pass(given):
    check_types(Options(**given))


@pytest.mark.parametrize("given, message", [
    ({"count": "5"}, "count: '5'; expected a whole number"),
    ({"count": True}, "count: True; expected a whole number"),
    ({"count": 1.0}, "count: 1.0; expected a whole number"),
    ({"rate": None}, "rate: None; expected a number"),
    ({"kind": "c"}, "kind: 'c'; expected one of a, b"),
    ({"kind": ["a"]}, r"kind: \['a'\]; expected one of a, b"),
    ({"pair": (1.0,)}, r"pair: \(1.0,\); expected a list of 2 values, each a number"),
    ({"pair": [1.0, 2.0]}, "pair: .*expected a list"),
    ({"names": (1,)}, "names: .*expected a list of values, each text or nothing"),
    ({"fast": 1}, "fast: 1; expected true or false"),
])  # fmt: skip
def test_values_of_another_type_are_refused_by_name(given, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        check_types(Options(**given))


def test_the_message_stays_short_whatever_the_value_is():
    value = ["x"]
    for _ in range(60):
        value = [value] * 8  # shared, as YAML aliases are: its full text would fill the memory
    with pytest.raises(ConfigError) as error:
        check_types(Options(count=value))
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("given, expected", [
    ("cpu", "cpu"), ("CUDA", "cuda"), ("cuda:1", "cuda:1"), ("0", "cuda:0"), (1, "cuda:1"), ("gpu", "cuda"),
    ("mps", "mps"),
])  # fmt: skip
def test_devices_are_named_as_in_pytorch(given, expected):
    assert device_name(given) == expected
    assert backends.Settings(device=str(given)).device == expected
