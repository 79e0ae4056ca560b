"""Tests of lookonce.data.lookup: images and files by folder, name and pattern."""

import os

import pytest

from lookonce.data.lookup import find_images, walk_files, walk_images
from lookonce.errors import UserError

needs_links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


def test_find_images_takes_files_folders_and_patterns(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "a.png", "sub/c.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [os.path.basename(p) for p in find_images(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]
    assert [os.path.basename(p) for p in find_images(str(tmp_path / "*.png"))] == ["a.png"]
    assert find_images(tmp_path / "notes.txt") == [str(tmp_path / "notes.txt")]
    with pytest.raises(UserError, match="no images there"):
        find_images(tmp_path / "none" / "*.jpg")


@pytest.mark.parametrize("folder, name, pattern", [
    ("dir[1]", "a.jpg", "dir[1]/*.jpg"), ("dir[1]", "a.jpg", "dir[1]"), ("dir", "photo[1].jpg", "dir/photo[1].jpg"),
    ("dir", "photo[1]a.jpg", "dir/photo[1]*.jpg"), ("a[b]/c[d]", "x.jpg", "a[b]/c[d]/?.jpg"),
    ("dir", "p1.jpg", "dir/p[1].jpg"), ("dir[1]", "a.jpg", "dir[1]/**/*.jpg"),
])  # fmt: skip
def test_brackets_in_names_that_exist_are_no_pattern(tmp_path, folder, name, pattern):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / name).touch()
    assert find_images(tmp_path / pattern) == [str(tmp_path / folder / name)]


def test_an_existing_name_wins_over_what_its_pattern_means(tmp_path):
    for folder in ("dir1", "dir[1]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").touch()
    assert find_images(tmp_path / "dir[1]" / "*.jpg") == [str(tmp_path / "dir[1]" / "a.jpg")]


def test_hidden_files_and_folders_hold_no_images(tmp_path):
    for place in ("a.jpg", "._a.jpg", ".ipynb_checkpoints/b.jpg", "__MACOSX/c.jpg", "sub/.cache/d.jpg", "sub/e.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert list(walk_images(tmp_path)) == [str(tmp_path / "a.jpg"), str(tmp_path / "sub" / "e.jpg")]
    assert find_images(tmp_path) == list(walk_images(tmp_path))
    hidden = tmp_path / "sub" / ".cache"
    assert find_images(hidden) == [str(hidden / "d.jpg")]  # named, so meant


@needs_links
def test_links_to_folders_are_followed_once_and_loops_end(tmp_path):
    store = tmp_path / "store"
    (store / "deep").mkdir(parents=True)
    (store / "deep" / "a.jpg").touch()
    root = tmp_path / "set"
    root.mkdir()
    (root / "images").symlink_to(store)
    (root / "again").symlink_to(store / "deep")
    (store / "loop").symlink_to(root)
    (root / "broken").symlink_to(tmp_path / "gone")
    (root / "self").symlink_to(root / "self")
    assert [os.path.basename(path) for path in walk_images(root)] == ["a.jpg"]
    assert len(find_images(root)) == 1


def test_folders_are_left_out_where_they_are_not_to_be_entered(tmp_path):
    for place in ("a/x.txt", "b/a/y.txt", "z.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    found = [
        (os.path.relpath(folder, tmp_path), names) for folder, names in walk_files(tmp_path, lambda p: p == ("a",))
    ]
    assert found == [(".", ["z.txt"]), ("a", ["x.txt"])]
