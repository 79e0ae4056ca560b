"""Mirrors src/lookonce/__init__.py: the names that people import."""

import subprocess
import sys
from pathlib import Path

import pytest

import lookonce


def test_every_public_name_is_there_and_there_are_not_many():
    assert all(getattr(lookonce, name) is not None for name in lookonce.__all__)
    assert len(lookonce.__all__) <= 16
    assert set(lookonce.__all__) == set(lookonce._HOMES)


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(AttributeError, match="has no attribute 'yolo'; it has Anchors"):
        _ = lookonce.yolo


def test_no_module_hides_a_public_function():
    code = (
        "import lookonce, lookonce.commands.demo; assert all(callable(getattr(lookonce, n)) for n in lookonce.__all__)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not {module.rpartition(".")[2] for module in lookonce._HOMES.values()} & set(lookonce.__all__)


def test_import_is_instant():
    code = "import sys, lookonce; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OFFLINE = """
import socket, sys
def refuse(*arguments, **_):
    raise AssertionError(f"a connection was tried: {arguments}")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse
sys.path.insert(0, sys.argv[1])
from sets import nano
from lookonce.model import zoo
from lookonce.cli import main
zoo.DETECTORS["nano"] = nano
data, out = sys.argv[2:]
small = ["--network", "nano", "--size", "64", "--epochs", "1", "--anchors", "2"]
assert main(["anchors", data, "--plot", out + "/anchors.png"]) == 0
assert main(["train", data, "--out", out, "--name", "r", *small]) == 0
assert main(["evaluate", out + "/r", data, "--bootstrap", "10"]) == 0
assert main(["detect", out + "/r", data + "/JPEGImages/test000.png", "--out", out + "/d"]) == 0
assert main(["download"]) == 0  # the table; with a name it is the one command that opens connections
"""


def test_no_command_opens_a_connection_unasked(squares, tmp_path):
    words = [sys.executable, "-c", OFFLINE, str(Path(__file__).parent), str(squares), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
