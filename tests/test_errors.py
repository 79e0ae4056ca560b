"""Tests of lookonce.errors."""

import copy
import pickle

import pytest

from lookonce import errors


def test_every_error_of_the_users_is_one_line_that_names_its_place():
    said = [
        errors.ImageError("a.jpg", "the image is cut"),
        errors.AnnotationError("a.txt", 4, "7 fields", "5"),
        errors.NonFiniteLossError("wh", ["a.jpg", "b.jpg"]),
    ]
    assert [str(e).split(":")[0] for e in said[:2]] == ["a.jpg", "a.txt"]
    assert "a.jpg, b.jpg" in str(said[2])
    assert all(isinstance(e, errors.UserError) and "\n" not in str(e) for e in said)


@pytest.mark.parametrize("error", [
    errors.UserError("a\nb"), errors.ConfigError("x"), errors.ImageError("a.jpg", "is cut"),
    errors.AnnotationError("a.txt", 4, "7 fields", "5"), errors.NonFiniteLossError("wh", ["a.jpg"]),
])  # fmt: skip
def test_errors_pass_between_processes_unchanged(error):
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(other), other.args, vars(other)) == (type(error), error.args, vars(error))


@pytest.mark.parametrize("given, shown", [
    ("a\nb\r\tc", "a\\nb\\r\\tc"),
    ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
    ("\u202egpj.exe", "\\u202egpj.exe"),
    ("a\u2028b\x85c\ufeff", "a\\u2028b\\x85c\\ufeff"),
    ("half \ud83d", "half \\ud83d"),
])  # fmt: skip
def test_what_a_terminal_would_obey_is_escaped(given, shown):
    assert errors.printable(given) == shown
    assert str(errors.UserError(given)) == str(errors.ConfigError(given)) == shown
    assert shown in str(errors.AnnotationError(given, 1, given, given))
    assert shown.encode()  # a lone surrogate could not be written
    assert len(str(errors.ImageError(given, given)).splitlines()) == 1


@pytest.mark.parametrize("text", ["клетка", "細胞 🔬", "👩‍🔬", "Zürich", "می‌خواهم", "C:\\images\\a b.png", "שלום"])
def test_letters_of_every_script_stay(text):
    assert errors.printable(text) == text == str(errors.UserError(text))


def test_the_middle_of_an_endless_message_is_left_out():
    said = str(errors.UserError("a.yaml: " + "9" * 100_000 + "; expected names"))
    assert len(said) == errors.MAX_LENGTH
    assert said.startswith("a.yaml: 999")
    assert said.endswith("999; expected names")
    assert " ... " in said
    assert str(errors.UserError(said)) == said


def test_counts_have_their_noun_in_the_singular_or_plural():
    found = [errors.plural(n, noun) for n in (0, 1, 1234) for noun in ("image", "class", "box")]
    assert found == ["0 images", "0 classes", "0 boxes", "1 image", "1 class", "1 box",
                     "1,234 images", "1,234 classes", "1,234 boxes"]  # fmt: skip
