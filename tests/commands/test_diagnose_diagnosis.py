"""Mirrors src/lookonce/diagnosis.py."""

import json

from lookonce.commands.diagnose import LONGEST, Diagnosis, failed, passed, skipped
from lookonce.evaluation.localization import Bars

BARS = Bars("score from", ("detections",), (("0", (0,)), ("0.5", (20,)), ("0.9", (5,))))


def test_the_table_says_each_check_and_the_bars_need_no_colour():
    checks = (passed("weights", "all finite"), failed("anchors", "in pixels: divide", ("a.xml:3: cat",)),
              skipped("curves", "no metrics.csv"))  # fmt: skip
    said = str(Diagnosis("run", "data", checks, (BARS,)))
    assert "anchors" in said
    assert "FAIL" in said
    assert "a.xml:3: cat" in said
    assert said.endswith("Fix in this order: anchors")
    assert [line.count("#") for line in said.splitlines() if "#" in line] == [LONGEST, LONGEST // 4]
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 120


def test_only_a_failed_check_ends_with_1():
    assert Diagnosis("r", "d", (passed("a", ""), skipped("b", ""))).exit_code == 0
    found = Diagnosis("r", "d", (passed("a", ""), failed("b", "")))
    assert (found.exit_code, found.failed) == (1, ("b",))


def test_json_holds_the_same():
    told = json.loads(json.dumps(Diagnosis("r", "d", (failed("a", "x", ("p",)),), (BARS,)).to_json()))
    assert told["failed"] == ["a"]
    assert told["checks"] == [{"name": "a", "state": "FAIL", "said": "x", "places": ["p"]}]
    assert told["bars"][0]["rows"][1] == ["0.5", [20]]
