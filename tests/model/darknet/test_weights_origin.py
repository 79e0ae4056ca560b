"""Mirrors src/lookonce/darknet/origin.py. Source of the forms: darknet/src/parser.c, load_weights_upto."""

import struct

import pytest

from lookonce.model.darknet.weights import Header, read_header


@pytest.mark.parametrize("version, wide", [
    ((0, 1, 0), False), ((0, 2, 0), True), ((0, 2, 5), True), ((1, 0, 0), True), ((0, 0, 9), False),
    ((1001, 2, 0), False), ((0, 1001, 0), False), ((999, 999, 0), True), ((1000, 0, 0), False),
])  # fmt: skip
def test_the_version_says_how_wide_seen_is(version, wide):
    data = struct.pack("<3iQ" if wide else "<3iI", *version, 123_456) + b"numbers"
    header = read_header(data)
    assert header == Header(*version, 123_456)
    assert header.length == (20 if wide else 16)
    assert header.pack() == data[: header.length]


def test_a_thousand_and_more_says_transposed():
    assert [Header(*v).transposed for v in [(1001, 0, 0), (0, 1001, 0), (1000, 1000, 0), (0, 2, 0)]] == [
        True, True, False, False]  # fmt: skip


def test_a_count_beyond_32_bits_takes_the_long_form():
    assert Header(0, 1, 0, 2**32 - 1).pack()[:12] == struct.pack("<3i", 0, 1, 0)
    assert read_header(Header(0, 1, 0, 2**32).pack()) == Header(0, 2, 0, 2**32)


def test_a_header_cut_short_is_no_header():
    with pytest.raises(struct.error):
        read_header(struct.pack("<3iI", 0, 2, 0, 0))
