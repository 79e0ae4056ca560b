"""Tests of lookonce.commands.cache."""

import os

import fsspec

from lookonce.cli import main
from lookonce.data.tars import MIRROR, mirrored
from lookonce.inference.cache import locked

KEYS = [f"{n:032x}" for n in range(3)]


def put(key, size, kind):
    with locked(kind, key) as entry:
        entry.empty()
        (entry.folder / "a.bin").write_bytes(bytes(size))
        entry.finish(f"entry {key[-1]}", entry.folder / "a.bin")
    return entry.folder / "entry.json"


def test_it_lists_and_clears_and_touches_nothing_else(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "c"
    monkeypatch.setenv("LOOKONCE_CACHE", str(folder))
    os.utime(put(KEYS[0], 1000, "forms"), (1e9, 1e9))
    put(KEYS[1], 2_000_000, "features")
    theirs = [folder / "photo.jpg", folder / "forms" / "notes" / "a.txt", folder / "features" / KEYS[2][:-1] / "a.txt"]
    for file in theirs:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    assert main(["cache"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split()[:2] == ["2.0", "MB"]
    assert said[0].endswith("entry 1")
    assert said[1].endswith("entry 0")
    assert "2001" in said[1]
    assert said[2] == f"{folder}: 2 entries, 2.0 MB of 20.0 GB"
    with locked("features", KEYS[1]):
        assert main(["cache", "--clear"]) == 0
        assert f"{folder}: 1 entry, in use" in capsys.readouterr().out
    assert main(["cache", "--clear"]) == 0
    assert "1 entry removed" in capsys.readouterr().out
    assert all(file.read_text() == "mine" for file in theirs)


def test_published_models_are_counted_and_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.weights").write_bytes(bytes(3_700_000))
    assert main(["cache", "--clear"]) == 0
    assert f"{tmp_path / 'models'}: 3.7 MB of published models, which stay" in capsys.readouterr().out
    assert (tmp_path / "models" / "a.weights").exists()


def test_data_sets_from_an_address_are_listed_and_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "c"))
    written = {"a.tar": b"", "shards.json": bytes(500_000)}
    address = f"memory://{tmp_path.name}/cells"
    for name, content in written.items():
        with fsspec.open(f"{address}/{name}", "wb") as file:
            file.write(content)
    folder = mirrored(address)
    (tmp_path / "c" / "shards" / "0" / "notes").mkdir(parents=True)
    (tmp_path / "c" / "shards" / "0" / "notes" / MIRROR).write_text("mine")
    assert main(["cache", "--clear"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2:] == [f"{folder}: 0.5 MB of images of {address}, which stay; delete the folder to free them"]
    assert (folder / "shards.json").stat().st_size == 500_000
