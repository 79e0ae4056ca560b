"""Tests of lookonce.training.config."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from lookonce import read_dataset
from lookonce.errors import ConfigError, UserError
from lookonce.model.darknet.cfg import Cfg, write_cfg
from lookonce.model.layers import Conv, Region
from lookonce.training.config import DataIdentity, RunConfig, network_cfg, with_loss_of_heads
from lookonce.training.recipes import Settings


def test_the_config_repeats_the_run(run):
    plan = RunConfig.from_yaml((run / "config.yaml").read_bytes(), run)
    assert plan.to_yaml() == (run / "config.yaml").read_text()
    assert plan.settings.batch_size == 4
    assert Path(plan.data).is_absolute()
    with pytest.raises(UserError, match=r"cannot be read as the config\.yaml of a run"):
        RunConfig.from_yaml(b"a: 1", run)


def test_a_config_of_before_keep_last_is_still_read(run):
    text = (run / "config.yaml").read_bytes()
    before = text.replace(b"keep_last: false\n", b"")
    assert before != text
    assert RunConfig.from_yaml(before, run) == RunConfig.from_yaml(text, run)


def test_the_config_is_yaml_that_the_command_line_takes(run):
    flat = yaml.safe_load((run / "config.yaml").read_text())
    assert flat["network"] == "nano"
    assert flat["augment"]["zoom"] == [0.7, 1.4]


def bomb():
    """YAML whose aliases unfold to 9**20 words."""
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 21)]
    return "\n".join(lines)


@pytest.mark.parametrize("change", [
    ("seed: 0", "seed: zero"), ("seed: 0", "seed: -1"), ("seed: 0", "seed: 5000000000"),
    ("size: 96", "size: 2001-01-01"),
    ("size: 96", "size: 999999968"), ("- 0.7\n  - 1.4", "- 0.7"), ("workers: null", "workers: 10000000"),
    ("labels: null", "labels: 3"), ("labels: null", "labels: [1]"), ("device: auto", "device: tpu"),
    ("epochs: 60", "epochs: '60'"), ("epochs: 60", "epochs: " + "9" * 5000), ("epochs: 60", "epochs: *a"),
    ("network: nano", "network: [nano]"), ("augment:", "augment: 3\nb:"), ("flip: 0.5", "flip: yes please"),
    ("data: ", "data: [" * 5000), ("data: ", "data: \x1b[31m\x00"), ("data: ", bomb() + "\ndata: "),
    ("size: 96", bomb() + "\nsize: *a20"), ("loss: region_ciou", "loss: a\n b\n c"),
    ("precision: auto", "precision: fp8"),
])  # fmt: skip
def test_a_damaged_config_is_one_line(change, run):
    text = (run / "config.yaml").read_text()
    assert change[0] in text
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read as the config") as error:
        RunConfig.from_yaml(text.replace(*change, 1).encode(), run / "config.yaml")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}: ", b"a" * 200_000, b"- 1", b"dat1\x80\x81400"])
def test_what_is_no_config_is_one_line(content, run):
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read as the config") as error:
        RunConfig.from_yaml(content, run / "config.yaml")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("device", ["abacus", "cuda:x", "mps:1", -1, None])
def test_a_device_that_training_does_not_know_is_named(device, run):
    plan = RunConfig.from_yaml((run / "config.yaml").read_bytes(), run)
    with pytest.raises(UserError, match=f"device: {device!r}; expected auto, cpu, cuda, cuda:NUMBER or mps"):
        replace(plan, device=device)


@pytest.mark.parametrize("device, name", [("gpu", "cuda"), ("0", "cuda:0"), (1, "cuda:1"), ("MPS", "mps")])
def test_devices_have_the_names_of_other_programs_too(device, name, run):
    plan = RunConfig.from_yaml((run / "config.yaml").read_bytes(), run)
    assert replace(plan, device=device).device == name


@pytest.fixture(scope="module")
def parts(squares):
    return {name: read_dataset(squares, name) for name in ("train", "val")}


def test_a_written_identity_is_read_again(parts, tmp_path):
    identity = DataIdentity.of(parts)
    identity.write(tmp_path)
    assert DataIdentity.read(tmp_path) == identity
    assert identity.difference(DataIdentity.of(parts)) == ""
    assert identity.classes == ("blue", "red")
    assert list(identity.splits["val"]) == parts["val"].paths.tolist()
    assert DataIdentity.read(tmp_path / "none") is None


def test_each_kind_of_other_data_is_named(parts):
    train, val = parts["train"], parts["val"]
    moved, hard, named = train.boxes.copy(), train.difficult.copy(), train.classes.copy()
    moved[0, 0] += 1
    hard[0] = True
    named[0] = 1 - named[0]
    first = str(train.paths[0])
    cases = {
        "class 1 was 'red', the data now has 'green'": {"train": replace(train, labels=("blue", "green"))},
        "class 0 was 'blue', the data now has 'red'": {"train": replace(train, labels=("red", "blue"))},
        "the run has 2 classes (blue, red), the data now has 3 (blue, green, red)": {
            "train": replace(train, labels=("blue", "green", "red"))},
        f"of the images of split 'train' 1 are gone, the first: {first}": {"train": train.select(np.arange(1, 24))},
        f"split 'train' 1 have other labels, the first: {first}": {"train": replace(train, boxes=moved)},
        "24 are gone": {"train": val},
        "8 are new": {"train": val},
        "of the images of split 'val' 8 are gone": {"train": train},
        "the images of split 'train' are in another order": {"train": train.select(np.arange(24)[::-1])},
    }  # fmt: skip
    before = DataIdentity.of(parts)
    for said, now in cases.items():
        whole = now if "'val'" in said else {"val": replace(val, labels=now["train"].labels), **now}
        assert said in before.difference(DataIdentity.of(whole)), said
    for fields in ({"difficult": hard}, {"classes": named}):
        found = before.difference(DataIdentity.of({**parts, "train": replace(train, **fields)}))
        assert "1 have other labels" in found


def test_the_place_of_the_data_does_not_matter(parts, tmp_path):
    moved = {name: replace(part, root=tmp_path, name="other") for name, part in parts.items()}
    assert DataIdentity.of(moved) == DataIdentity.of(parts)


@pytest.mark.parametrize("text", [
    "", "[]", "3", "{", '{"format": 2}', '{"format": 1, "classes": "ab", "splits": {}}', "[" * 100_000, "\udcff",
    '{"format": 1, "classes": [1], "splits": {}}', '{"format": 1, "classes": ["a"], "splits": {"train": ["a.png"]}}',
    '{"format": 1, "classes": ["a"], "splits": {"train": {"a.png": 3}}}',
])  # fmt: skip
def test_a_damaged_data_file_is_one_line(text, tmp_path):
    (tmp_path / "data.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"data\.json: cannot be read \(\w+\).*remove the file") as error:
        DataIdentity.read(tmp_path)
    assert "\n" not in str(error.value)


def test_the_data_file_has_a_short_line_for_each_image(parts, tmp_path):
    DataIdentity.of(parts).write(tmp_path)
    text = (tmp_path / "data.json").read_text()
    assert json.loads(text)["format"] == 1
    assert len(text) < 32 * 60 + 200


def test_binary_weights_are_not_trained(tmp_path):
    layers = (Conv(6, xnor=True), Conv(6, 1, batch_normalize=False), Region(((1, 1),), 1))
    (tmp_path / "bits.cfg").write_text(write_cfg(Cfg(layers)))
    with pytest.raises(
        ConfigError, match=r"bits\.cfg: its convolutions with xnor=1 \(binary weights\) are for detection"
    ):
        network_cfg(Settings(network=str(tmp_path / "bits.cfg")), 1)


@pytest.mark.parametrize(
    "network, loss", [("yolov2_tiny", "region_ciou"), ("yolov4_tiny", "region"), ("yolov1_tiny", "region")]
)
def test_heads_that_have_one_loss_take_it_by_default(network, loss):
    assert with_loss_of_heads(Settings(network=network)).loss == loss
