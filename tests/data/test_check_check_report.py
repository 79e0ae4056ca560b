"""Mirrors src/lookonce/check_report.py."""

from dataclasses import replace

from lookonce.commands.check import check
from lookonce.data.check import MOST_CLASSES, SHOWN, Finding, summary


def test_findings_say_how_many_where_and_what_to_do(squares):
    report = check(squares, anchors=2, images=False)
    one = Finding("box twice", 1234, tuple(f"a.xml:{n}: cat" for n in range(10)))
    two = Finding("image missing", 1, ("b.jpg",))
    said = str(replace(report, findings=(one, two)))
    assert " - 1,234 x box twice: delete one" in said
    assert said.count("a.xml:") == SHOWN
    assert f"and {1234 - SHOWN:,} more" in said
    assert "!! 1 x image missing: put the image there" in said
    assert said.endswith("To mend before training: image missing")
    assert max(map(len, said.splitlines())) <= 120


def test_very_many_classes_are_summed_up(squares):
    report = check(squares, anchors=2, images=False)
    counted = replace(report.counted, classes={f"c{n}": (n, 1) for n in range(100)})
    said = str(replace(report, counted=counted))
    assert f"{100 - MOST_CLASSES} more" in said
    assert "c99" in said


def test_the_summary_names_crowd_and_unopened_images(squares):
    report = check(squares, anchors=2, images=False)
    counted = replace(report.counted, difficult=7, crowd=3)
    said = summary(replace(report, counted=counted))
    assert "(4 difficult, 3 crowd)" in said
    assert "not opened" in said


def test_the_summary_says_which_split_came_from_where(squares):
    said = summary(check(squares, anchors=2, images=False))
    assert said.splitlines()[-2].startswith("split: train 24 (")
    assert said.splitlines()[-2].endswith("objects), from ImageSets/Main/*.txt")
