"""Mirrors src/lookonce/errors.py."""

from lookonce import errors


def test_every_error_of_the_users_is_one_line_that_names_its_place():
    said = [
        errors.PictureError("a.jpg", "the picture is cut"),
        errors.AnnotationError("a.txt", 4, "7 fields", "5"),
        errors.NonFiniteLossError("wh", ["a.jpg", "b.jpg"]),
    ]
    assert [str(e).split(":")[0] for e in said[:2]] == ["a.jpg", "a.txt"]
    assert "a.jpg, b.jpg" in str(said[2])
    assert all(isinstance(e, errors.UserError) and "\n" not in str(e) for e in said)
