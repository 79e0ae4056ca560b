"""Tests of lookonce.data.lookup."""

import os
from pathlib import PureWindowsPath

import pytest

from lookonce.data.lookup import (
    Folders,
    anchored,
    contradict,
    find_images,
    folder_split,
    image_folders,
    is_plain,
    is_split,
    relative_path,
    sections,
    split_path,
    split_word,
    walk_files,
    walk_images,
)
from lookonce.errors import UserError
from lookonce.text import read_lines


@pytest.mark.parametrize("name, split", [
    ("train", "train"), ("train2017", "train"), ("cells_train", "train"), ("cellsTrain", "train"), ("TRAIN", "train"),
    ("valid", "val"), ("validation", "val"), ("val_coco", "val"), ("dev", "val"), ("holdout", "test"),
    ("trainval", None), ("fold1", None), ("train_val", None), ("constrained", None), ("default", None), ("2007", None),
])  # fmt: skip
def test_a_name_speaks_of_one_split_or_of_none(name, split):
    assert split_word(name) == split


@pytest.mark.parametrize("name, expected", [
    ("train", True), ("val2017", True), ("test_images", True), ("obj_train_data", True), ("Validation", True),
    ("train_station", False), ("images", False), ("trainval", False), ("", False),
])  # fmt: skip
def test_a_folder_is_a_split_where_its_name_says_nothing_else(name, expected):
    assert is_split(name) == expected


@pytest.mark.parametrize("folders, split", [
    (["images", "train"], "train"), (["train", "images"], "train"), (["valid"], "valid"),
    (["fold1", "val", "images"], "fold1/val"), (["images", "cats"], None), ([], None),
])  # fmt: skip
def test_folders_name_a_split(folders, split):
    assert folder_split(folders) == split


def test_plain_names_say_what_a_folder_holds():
    assert is_plain("_annotations.coco")
    assert is_plain("JPEGImages")
    assert not is_plain("cells")
    assert not is_plain("2017")


def test_two_paths_contradict_where_their_folders_are_of_different_splits():
    assert contradict(["images", "train"], ["labels", "val"])
    assert not contradict(["images", "train"], ["train2017"])
    assert not contradict(["images"], ["val"])


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfa b\r\nc\r\n", "a b\nc\n".encode("utf-16"), b"a b\rc\r", b"a b\nc\n"]
)
def test_lines_are_the_same_from_any_machine(tmp_path, content):
    (tmp_path / "l.txt").write_bytes(content)
    assert read_lines(tmp_path / "l.txt", "words") == ["a b", "c", ""]


@pytest.mark.parametrize("text, root, below", [
    ("D:\\sets\\a.jpg", "D:\\", ["sets", "a.jpg"]), ("D:/sets/a.jpg", "D:\\", ["sets", "a.jpg"]),
    ("\\\\server\\share\\sets\\a.jpg", "\\\\server\\share\\", ["sets", "a.jpg"]),
    ("sets\\a.jpg", "", []), ("D:a.jpg", "", []), ("\\a.jpg", "", []), ("", "", []),
])  # fmt: skip
def test_absolute_paths_of_windows_keep_their_drive_or_server(text, root, below):
    assert anchored(text, PureWindowsPath) == (root, below)


@pytest.mark.parametrize("there, written", [
    ("Caf\u00e9.JPG", "cafe\u0301.jpg"), ("cafe\u0301.jpg", "caf\u00e9.jpg"), ("IMG_1.jpg", "img_1.JPG"),
    ("Stra\u00dfe.png", "STRASSE.jpg"),
])  # fmt: skip
def test_names_that_other_systems_take_for_one_are_found(tmp_path, there, written):
    """macOS keeps accents apart from their letters, and it and Windows ignore case."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / there).touch()
    assert Folders().resolve(f"images/{written}", [tmp_path], image=True) == tmp_path / "images" / there
    assert Folders(tmp_path).by_name(written) == tmp_path / "images" / there
    (tmp_path / "images" / written).touch()
    assert Folders().resolve(f"images/{written}", [tmp_path], image=True).name == written


def test_what_is_no_text_is_told_in_one_line(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xff\xd8\xff\0")
    with pytest.raises(UserError, match=r"l\.txt: not a text file; expected words"):
        read_lines(tmp_path / "l.txt", "words")
    with pytest.raises(UserError, match="cannot be read"):
        read_lines(tmp_path / "none.txt", "words")
    with pytest.raises(UserError, match="4 bytes; expected words, at most 3"):
        read_lines(tmp_path / "l.txt", "words", most=3)


@pytest.mark.parametrize(
    "text", ["set/a.jpg", "/home/me/set/a.jpg", "C:\\data\\set\\a.jpg", "./set/a.jpg", "data/set/a.jpg", "../set/a.jpg"]
)
def test_a_path_of_any_machine_is_resolved_by_what_exists(tmp_path, text):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jpg").touch()
    assert Folders().resolve(text, [tmp_path]) == tmp_path / "set" / "a.jpg"


def test_an_absolute_path_that_exists_is_taken_as_it_stands(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "set").mkdir(parents=True)
        (tmp_path / name / "set" / "a.jpg").touch()
    there = tmp_path / "two" / "set" / "a.jpg"
    assert Folders().resolve(str(there), [tmp_path / "one"]) == there


def test_an_image_of_another_ending_will_do_for_images_only(tmp_path):
    (tmp_path / "a.PNG").touch()
    assert Folders().resolve("a.jpg", [tmp_path], image=True) == tmp_path / "a.PNG"
    assert Folders().resolve("a.jpg", [tmp_path]) is None
    assert Folders().resolve("", [tmp_path]) is None
    assert Folders().resolve("a\0.jpg", [tmp_path]) is None


def test_the_nearest_meaning_wins_whatever_came_before(tmp_path):
    for place in ("a/x.jpg", "b/a/x.jpg", "b/a/y.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    folders = Folders()
    assert folders.resolve("b/a/y.jpg", [tmp_path]) == tmp_path / "b/a/y.jpg"
    assert folders.resolve("b/a/x.jpg", [tmp_path]) == tmp_path / "b/a/x.jpg"
    assert folders.resolve("a/x.jpg", [tmp_path]) == tmp_path / "a/x.jpg"


def test_paths_are_told_from_the_root(tmp_path):
    root = tmp_path / "set"
    assert relative_path(root / "images" / "a.jpg", root) == "images/a.jpg"
    assert relative_path(tmp_path / "a.jpg", root) == "../a.jpg"
    assert split_path("D:\\x\\.\\y") == ["x", "y"]
    assert tmp_path / "JPEGImages" in image_folders(root)


def test_an_image_that_alone_has_its_name_is_found_last(tmp_path):
    for place in ("some/where/a.JPG", "one/b.jpg", "two/b.jpg", "images/val/c.jpg", "here/d.jpg", ".x/e.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    folders = Folders(tmp_path, {"d.jpg"})
    assert folders.resolve("x/A.jpg", [tmp_path], image=True) == tmp_path / "some/where/a.JPG"
    assert folders.resolve("x/A.png", [tmp_path], image=True) == tmp_path / "some/where/a.JPG"
    assert folders.resolve("b.jpg", [tmp_path], image=True) is None
    assert folders.resolve("images/train/c.jpg", [tmp_path], image=True) is None
    assert folders.resolve("images/c.jpg", [tmp_path], image=True) == tmp_path / "images/val/c.jpg"
    assert folders.resolve("x/d.jpg", [tmp_path], image=True) is None
    assert folders.resolve("e.jpg", [tmp_path], image=True) is None
    assert folders.resolve("x/a.JPG", [tmp_path]) is None
    assert Folders().resolve("x/A.jpg", [tmp_path], image=True) is None


def test_annotations_may_lie_in_folders_named_for_what_they_hold_or_for_a_split(tmp_path):
    for place in ("annots/deep/a", "train/labels/a", "labels/val/a", "cats/labels/a", "VOC2007/Annotations/a"):
        (tmp_path / place).mkdir(parents=True)
    found = {folder.relative_to(tmp_path).as_posix() for folder, _ in sections(tmp_path)}
    assert found == {".", "annots", "annots/deep", "annots/deep/a", "train", "train/labels", "train/labels/a", "labels",
                     "labels/val", "labels/val/a"}  # fmt: skip


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
