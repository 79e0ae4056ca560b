"""Mirrors src/lookonce/darknet/words.py."""

from lookonce.model.darknet.cfg import FIXED, KEPT, READ, SHORT_NAMES


def test_each_key_has_one_fate():
    for section, keys in READ.items():
        kept, fixed = KEPT.get(section, frozenset()), FIXED.get(section, {}).keys()
        assert not keys & kept | keys & fixed | kept & fixed, section


def test_no_word_belongs_to_a_section_that_is_none():
    assert {*KEPT, *FIXED, *SHORT_NAMES.values()} <= READ.keys()
