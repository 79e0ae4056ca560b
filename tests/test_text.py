"""Tests of lookonce.text."""

import logging

import pytest

from lookonce.errors import UserError
from lookonce.text import decode, read_json, read_text, read_yaml

WORDS = {
    "gb2312": ["汽车\n自行车\n交通灯\n", "猫\n狗\n", "安全帽\n未戴安全帽\n", "划痕\n"],
    "cp1252": [
        "café\nnaïve\n",
        "Straße\nBär\n",
        "Bär\n",
        "maçã\nlimão\n",
        "niño\n",
        "# a \u2013 b\n",
        "é",
        "0 .5 .5 .2 .2\xa0\n",
    ],
    "cp1251": ["кошка\nсобака\n", "Человек\nМашина\n"],
    "shift_jis": ["猫\n犬\n自転車\n", "ネコ\nイヌ\n"],
    "euc_kr": ["고양이\n개\n자동차\n"],
    "big5": ["行人\n機車\n"],
    "cp1253": ["γάτα\nσκύλος\n"],
}


@pytest.mark.parametrize("encoding, text", [(encoding, text) for encoding, texts in WORDS.items() for text in texts])
def test_common_encodings_are_guessed_from_a_few_class_names(encoding, text):
    assert decode(text.encode(encoding))[0] == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_utf_needs_no_guess(encoding):
    assert decode("café\r\n猫".encode(encoding)) == ("café\r\n猫", "")


def test_the_guess_of_a_long_text_is_made_from_its_words_alone():
    text = "0 .5 .5 .5 .5\n" * 50_000 + "images/图片/汽车.jpg\n" * 50_000
    assert decode(text.encode("gbk"))[0] == text


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x89PNG\r\n\x1a\n\x00", b"\xff\xfe\x00",
                                     bytes(range(128, 256)), b"\x80\xff\xe0\xd0" * 500_000])  # fmt: skip
def test_what_is_no_text_is_refused(tmp_path, content):
    with pytest.raises(ValueError):
        decode(content)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.txt: not a text file; expected names, in UTF-8"):
        read_text(tmp_path / "a.txt", "names", 1 << 30)


def test_a_guess_is_said_in_one_line(tmp_path, caplog):
    (tmp_path / "a.txt").write_bytes("café\nnaïve\n".encode("latin-1"))
    with caplog.at_level(logging.WARNING, "lookonce"):
        assert read_text(tmp_path / "a.txt", "names", 99) == "café\nnaïve\n"
    [record] = caplog.records
    assert record.getMessage().endswith("read as cp1252: 'café', 'naïve'; if that is wrong, save it as UTF-8")
    said = []
    read_text(tmp_path / "a.txt", "names", 99, said.append)
    assert len(said) == len(caplog.records) == 1
    with pytest.raises(UserError, match="at most 3 bytes"):
        read_text(tmp_path / "a.txt", "names", 3)
    with pytest.raises(UserError, match="cannot be read"):
        read_text(tmp_path / "none.txt", "names", 99)


@pytest.mark.parametrize("text, message", [
    (b"[1,\n 2", "p.json:2: not valid JSON"), (b"[1,\n]", "p.json:2: not valid JSON"),
    (b"[1] 2", "trailing characters"),
    (b"[" * 200_000, "p.json: nested too deeply; expected a list"), (b"{}", "Expected array, got object"),
    (b"\xff\xfe\x00", "not a text file; expected a list"),
])  # fmt: skip
def test_what_is_no_json_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "p.json").write_bytes(text)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "p.json", list, "a list")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text, message", [
    ("a: &a [x]\nb: [*a, *a]", "c.yaml:2: an alias or deep nesting; expected options"),
    ("a: " + "[" * 100_000, "c.yaml:1: an alias or deep nesting"), ("a: 2001-99-99", "month must be in 1..12"),
    ("a: !!python/object/apply:os.getcwd []", "not YAML (could not determine a constructor"),
    ("a: " + "9" * 5000, "not YAML that can be read"), ('a: "C:\\data"', "write paths with /"),
    ("a: " + "x" * 300_000, "300003 bytes"),
])  # fmt: skip
def test_what_is_no_plain_yaml_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_yaml(tmp_path / "c.yaml", "options")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_gives_values_or_their_text(tmp_path):
    (tmp_path / "c.yaml").write_text("a: [1, no, 12:30]\n")
    assert read_yaml(tmp_path / "c.yaml", "options") == {"a": [1, False, 750]}
    assert read_yaml(tmp_path / "c.yaml", "options", as_text=True) == {"a": ["1", "no", "12:30"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_json_is_read_in_any_encoding(tmp_path, encoding):
    (tmp_path / "p.json").write_bytes('["caf\u00e9"]'.encode(encoding))
    assert read_json(tmp_path / "p.json", list, "a list", print) == ["caf\u00e9"]


def test_what_python_writes_and_json_forbids_is_read(tmp_path):
    (tmp_path / "p.json").write_text('["NaN, \\"Infinity", NaN, -Infinity, "a\\ud800", "\\\\ud800"]')
    assert read_json(tmp_path / "p.json", list, "a list") == [
        'NaN, "Infinity',
        "NaN",
        "-Infinity",
        "a\ufffd",
        "\\ud800",
    ]
