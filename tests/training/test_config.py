"""Tests of lookonce.training.config."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lookonce.errors import UserError
from lookonce.training.config import RunConfig


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
    ("size: 96", "size: 999999968"), ("- 0.7\n  - 1.4", "- 0.7"), ("workers: 0", "workers: 10000000"),
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


@pytest.mark.parametrize("device", ["gpu", "0", "cuda:0", "mps", 0, None])
def test_a_device_that_training_does_not_know_is_named(device, run):
    plan = RunConfig.from_yaml((run / "config.yaml").read_bytes(), run)
    with pytest.raises(UserError, match=f"device: {device!r}; expected one of auto, cpu, cuda"):
        replace(plan, device=device)
