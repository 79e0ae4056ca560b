"""Tests of lookonce.data.remote, on addresses of this machine: file:// and memory://."""

import sys
from pathlib import Path

import fsspec
import pytest

from lookonce.data.remote import as_address, copy_remote, is_address, opened_system, read_remote
from lookonce.errors import UserError


@pytest.mark.parametrize("address", ["s3://bucket/a b.jpg", "gs://b/c", "file:///tmp/x", "memory://a/b", "https://h/a"])
def test_an_address_survives_a_path(address):
    assert as_address(address) == as_address(Path(address)) == address
    assert is_address(address)
    assert is_address(Path(address))


@pytest.mark.parametrize("name", ["a.jpg", "/tmp/a.jpg", "C:/a.jpg", "C:\\a.jpg", "odd:name.jpg"])
def test_names_of_files_are_no_addresses(name):
    assert not is_address(name)


def test_whole_files_and_parts_of_them_are_read_within_a_bound(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    address = f"file://{tmp_path}/a"
    assert read_remote(address, 10) == b"0123456789"
    assert read_remote(address, 10, 3, 4) == b"3456"
    with pytest.raises(UserError, match="more than 9 bytes"):
        read_remote(address, 9)
    copy_remote(address, tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"0123456789"


def test_memory_is_an_address_too():
    with fsspec.open("memory://lookonce/x", "wb") as file:
        file.write(b"abc")
    assert read_remote("memory://lookonce/x", 3) == b"abc"


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        read_remote(f"file://{tmp_path}/none", 9)
    with pytest.raises(UserError, match="no such file or folder"):
        copy_remote(f"file://{tmp_path}/none", tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_protocol_without_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setenv("LOOKONCE_OFFLINE", "0")
    with pytest.raises(UserError, match="s3://bucket/a: needs a package of its protocol: Install s3fs"):
        opened_system("s3://bucket/a")
    with pytest.raises(UserError, match=r"nowhere://a/b: cannot be read .*Protocol not known: nowhere"):
        opened_system("nowhere://a/b")


def test_offline_forbids_addresses_of_other_machines(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    with pytest.raises(UserError, match="not opened, because of --offline"):
        opened_system("s3://bucket/a")
    assert opened_system(f"file://{tmp_path}")[1] == str(tmp_path)
