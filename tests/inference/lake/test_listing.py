"""Tests of lookonce.inference.lake.listing."""

import hashlib
import os

import pytest

from lookonce.errors import UserError
from lookonce.inference.lake import listing
from lookonce.inference.lake.listing import difference, find_names, shard_of, write_lists


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def all_names(lists):
    return [name for shard in range(lists.shards) for name in lists.read(shard)]


def test_every_name_is_in_one_shard_once(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "WAITING_BYTES", 500)  # lists are appended to in many parts
    names = [f"photos/{n % 90}.jpg" for n in range(100)]
    lists = write_lists(names, tmp_path / "lists", 7)
    assert sorted(all_names(lists)) == sorted(set(names))
    assert lists.names == 90
    assert all(shard == shard_of(f'"{name}"\n', 7) for shard in range(7) for name in lists.read(shard))


def test_the_shard_of_a_name_is_a_digest_of_it():
    digest = hashlib.blake2b(b'"photos/a.jpg"', digest_size=8).hexdigest()
    assert shard_of('"photos/a.jpg"\n', 1000) == int(digest, 16) % 1000


def test_order_and_doubles_do_not_change_the_digest_and_names_do(tmp_path):
    a = write_lists(["a.jpg", "b.jpg", "c.jpg"], tmp_path / "a", 2)
    b = write_lists(["c.jpg", "a.jpg", "b.jpg", "a.jpg"], tmp_path / "b", 2)
    c = write_lists(["a.jpg", "b.jpg", "d.jpg", "e.jpg"], tmp_path / "c", 2)
    assert a.digest == b.digest != c.digest
    assert difference(a, c) == "2 names more and 1 fewer"


def test_names_that_are_not_utf_8_and_have_line_ends_come_back(tmp_path):
    names = ["two\nlines.jpg", os.fsdecode(b"caf\xe9.jpg"), "Bild_\u00fc.jpg"]
    assert sorted(all_names(write_lists(names, tmp_path / "lists", 1))) == sorted(names)


def test_shards_have_a_thousand_names_if_no_number_is_given(tmp_path):
    assert write_lists(map(str, range(20_500)), tmp_path / "many", None).shards == 21
    assert write_lists(map(str, range(50)), tmp_path / "few", None).shards == listing.LEAST_SHARDS
    assert write_lists(["a", "b"], tmp_path / "two", None).shards == 2


def test_a_folder_gives_its_images_and_tars(tmp_path):
    touch(tmp_path, "a.jpg", "b/c.PNG", "b/d.tar", "b/notes.txt", ".hidden.jpg")
    assert list(find_names([str(tmp_path)])) == [str(tmp_path / name) for name in ("a.jpg", "b/c.PNG", "b/d.tar")]


def test_a_list_has_paths_from_its_folder_and_addresses(tmp_path):
    (tmp_path / "list.txt").write_text("# photos\nb/c.png\n\n/lake/a.jpg\ns3://bucket/d.jpg\n")
    wanted = [str(tmp_path / "b/c.png"), "/lake/a.jpg", "s3://bucket/d.jpg"]
    assert list(find_names([str(tmp_path / "list.txt")])) == wanted


def test_patterns_and_numbered_tars(tmp_path):
    touch(tmp_path, "x-008.tar", "x-009.tar", "x-010.tar", "y.jpg")
    assert list(find_names([f"{tmp_path}/x-{{008..010}}.tar"])) == [str(tmp_path / f"x-{n:03}.tar") for n in (8, 9, 10)]
    assert sorted(find_names([f"{tmp_path}/*.jpg"])) == [str(tmp_path / "y.jpg")]


def test_addresses_are_listed_through_fsspec(tmp_path):
    touch(tmp_path, "a.jpg", "b/c.png", "b/notes.txt")
    address = f"file://{tmp_path}"
    assert sorted(find_names([address])) == [f"{address}/a.jpg", f"{address}/b/c.png"]
    assert list(find_names([f"{address}/b/*.png"])) == [f"{address}/b/c.png"]
    assert list(find_names([f"{address}/a.jpg"])) == [f"{address}/a.jpg"]


def test_columns_of_parquet_tables(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="tables of images need pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"path": ["a.jpg", "s3://bucket/b.jpg", None], "note": ["x", "y", "z"], "n": [1, 2, 3]}
    parquet.write_table(pyarrow.table(table), tmp_path / "t.parquet")
    parquet.write_table(pyarrow.table({"p": ["a"], "q": ["b"]}), tmp_path / "u.parquet")
    assert list(find_names([str(tmp_path / "t.parquet")])) == [str(tmp_path / "a.jpg"), "s3://bucket/b.jpg"]
    assert list(find_names([f"{tmp_path}/t.parquet#note"])) == [str(tmp_path / name) for name in "xyz"]
    with pytest.raises(UserError, match=r"columns of text are p, q; name one: .*u\.parquet#COLUMN"):
        list(find_names([str(tmp_path / "u.parquet")]))
    (tmp_path / "v.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read as a parquet table"):
        list(find_names([str(tmp_path / "v.parquet")]))


@pytest.mark.parametrize("name, message", [
    ("nothing", "no such file or folder"),
    ("empty", "a folder without images"),
    ("*.jpg", "no such file or folder"),
    ("binary.txt", "binary.txt:1: not text"),
])  # fmt: skip
def test_what_is_not_there_is_refused(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2")
    with pytest.raises(UserError, match=message):
        list(find_names([str(tmp_path / name)]))


def test_a_list_without_names_is_refused(tmp_path):
    with pytest.raises(UserError, match="images: none found"):
        write_lists([], tmp_path / "lists", 3)
