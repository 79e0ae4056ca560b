"""Mirrors src/lookonce/training/plan.py."""

import pytest
import yaml

from lookonce.errors import UserError
from lookonce.training.plan import Plan


def test_the_config_repeats_the_run(run):
    plan = Plan.from_yaml((run / "config.yaml").read_text(), run)
    assert plan.to_yaml() == (run / "config.yaml").read_text()
    assert plan.settings.batch_size == 4
    with pytest.raises(UserError, match="not a run's config"):
        Plan.from_yaml("a: 1", run)


def test_a_config_of_before_keep_last_is_still_read(run):
    text = (run / "config.yaml").read_text()
    before = text.replace("keep_last: false\n", "")
    assert before != text
    assert Plan.from_yaml(before, run) == Plan.from_yaml(text, run)


def test_the_config_is_yaml_that_the_command_line_takes(run):
    flat = yaml.safe_load((run / "config.yaml").read_text())
    assert flat["network"] == "nano"
    assert flat["augment"]["zoom"] == [0.7, 1.4]
