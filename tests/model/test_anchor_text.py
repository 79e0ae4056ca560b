"""Anchors as text: units, files, and what is refused with the three readings."""

import pytest

from lookonce.errors import ConfigError
from lookonce.model.anchor_text import pairs_of, settle

BLOG = "1.07709888,1.78171903 2.71054693,5.12469308 10.47181473,10.09646365 5.48531347,8.11011331"


@pytest.mark.parametrize("given", [
    BLOG, BLOG.replace(" ", ", "), BLOG.replace(",", " "), BLOG + " cells",
    [(1.07709888, 1.78171903), (2.71054693, 5.12469308), (10.47181473, 10.09646365), (5.48531347, 8.11011331)],
])  # fmt: skip
def test_pairs_in_cells_are_taken_as_they_are(given):
    settled = settle(given, 416)
    assert settled == BLOG + " cells"
    assert settle(settled, 416) == settled
    assert pairs_of(settled)[2] == (10.47181473, 10.09646365)


def test_a_unit_is_converted_to_cells():
    assert settle("32,64 128,16 px", 416) == "1,2 4,0.5 cells"
    assert pairs_of(settle("0.25,0.5 fraction", 416)) == ((3.25, 6.5),)
    assert settle("0.5,0.75 cells", 416) == "0.5,0.75 cells"


@pytest.mark.parametrize("numbers", ["36,57 77,163", "0.08,0.14 0.2,0.4"])
def test_numbers_that_are_unlikely_to_be_cells_are_refused_with_three_readings(numbers):
    with pytest.raises(ConfigError, match=r"expected cells of 32 px.* px if cells, .* px if px, .* px if fraction"):
        settle(numbers, 416)


def test_the_readings_are_those_of_the_first_anchor():
    with pytest.raises(ConfigError, match=r"16 x 8 px if cells, 0\.5 x 0\.25 px if px, 208 x 104 px if"):
        settle("0.5,0.25 0.75,0.75", 416)


@pytest.mark.parametrize("text, message", [
    ("1.0,2.0,3.0", "3 numbers; expected pairs"), ("1,-2", "expected numbers above 0"),
    ("1,2 e", "expected width,height"),
    ("", "no file that can be read"), ("nosuch.txt", "'nosuch.txt' is no file that can be read"),
])  # fmt: skip
def test_what_is_no_anchors_is_one_line(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        settle(text, 416)


@pytest.mark.parametrize("content", [
    "curve\nanchors = 1.5,2, 3,4.25\nplot: a.png\n", '"text\\nanchors = 1.5,2, 3,4.25\\nplot"',
    "1.5,2  3,4.25\n0.71 mean IoU\n", "[region]\nanchors=1.5,2, 3,4.25\nclasses=2\n",
])  # fmt: skip
def test_a_file_of_lookonce_anchors_a_cfg_or_plain_numbers_is_read(content, tmp_path):
    file = tmp_path / "anchors.txt"
    file.write_text(content)
    assert settle(str(file), 416) == settle(file, 416) == "1.5,2 3,4.25 cells"


@pytest.mark.parametrize(
    "content", [b"no numbers\n", b"\xff\xfe\x00", b"1,2\n" * 300_000], ids=["words", "bytes", "long"]
)
def test_a_file_without_anchors_is_refused(content, tmp_path):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ConfigError, match="anchors: "):
        settle(str(tmp_path / "a.txt"), 416)
