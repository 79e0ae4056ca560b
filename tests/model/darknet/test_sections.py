"""Tests of lookonce.model.darknet.sections."""

import pytest

from conftest import SHARED, needs_shared
from lookonce.model.darknet.sections import FIXED, KEPT, READ, SHORT_NAMES, CfgError, read_sections


def test_a_text_becomes_sections_with_their_lines():
    net, conv = read_sections("[network]\nwidth = 64 # px\n; a comment\n\n[Conv]\nsize=3\nsize=5\n", "x.cfg")
    assert (net.name, net.line, net.lines) == ("net", 1, [("width", "64", 2)])
    conv.sort_keys()
    assert (conv.name, conv.line, conv.integer("size", 1), conv.flag("pad")) == ("convolutional", 5, 3, False)


@pytest.mark.parametrize("call, message", [
    (lambda s: s.integer("size", 1, most=2), "x.cfg:2: size=3; expected a whole number, at least 1 and at most 2"),
    (lambda s: s.one_of("activation", "leaky", ("leaky", "mish")), "x.cfg:3: activation=best; expected one of leaky"),
    (lambda s: s.numbers("anchors"), "x.cfg:1: .convolutional. without anchors; expected anchors=..."),
])  # fmt: skip
def test_values_are_read_by_type_and_errors_name_their_line(call, message):
    (section,) = read_sections("[conv]\nsize=3\nactivation=best\n", "x.cfg")
    section.sort_keys()
    with pytest.raises(CfgError, match=message):
        call(section)


def test_a_missing_number_is_the_default_also_infinity():
    (section,) = read_sections("[yolo]\n", "x.cfg")
    assert section.number("max_delta", float("inf")) == float("inf")


def test_each_key_has_one_fate():
    for section, keys in READ.items():
        kept, fixed = KEPT.get(section, frozenset()), FIXED.get(section, {}).keys()
        assert not keys & kept | keys & fixed | kept & fixed, section


def test_no_word_belongs_to_a_section_that_is_none():
    assert {*KEPT, *FIXED, *SHORT_NAMES.values()} <= READ.keys()


FAMILIES_PAGE = SHARED / "golden" / "cfg_families.md"


def detectors_of_darknet():
    """(cfg, keys by section, names of sections) of each row of the page's tables of detectors; base keys left out."""
    text = FAMILIES_PAGE.read_text() if FAMILIES_PAGE.is_file() else ""
    for line in text.partition("### v1\n")[2].partition("### classifier")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0].endswith(".cfg"):
            keys = dict(part.split(": ", 1) for part in cells[4].partition("; twice")[0].split("; ") if ": " in part)
            names = [name.split("×")[0] for name in cells[3].split()]
            yield pytest.param(names, {name: found.split() for name, found in keys.items()}, id=cells[0])


@needs_shared
@pytest.mark.parametrize("sections, keys", list(detectors_of_darknet()))
def test_every_section_and_key_of_darknets_detectors_is_known(sections, keys):
    for name in (*sections, *keys):
        if name == "crnn":  # recurrent: refused by its name
            continue
        section = name.lower()
        assert section in READ, name
        for key in keys.get(name, ()):
            known = {*READ[section], *KEPT[section], *FIXED.get(section, {})} | ({key} if section == "net" else set())
            assert key.startswith("−") or key in known, f"[{name}] {key}"
