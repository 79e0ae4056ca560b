"""No command opens a connection that was not asked for one: OpenVINO and NNCF would, if used in their usual way.

In processes of their own, where an audit hook stops the first socket, and the first process that could open one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import sys
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        print("CALLED", event, args, flush=True)
        import os
        os._exit(9)
sys.addaudithook(watch)
from lookonce.cli import main
from lookonce import Detector
"""
NANO = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from lookonce import zoo
from sets import nano
zoo.DETECTORS["nano"] = nano
"""


def watched(code, *words):
    return subprocess.run([sys.executable, "-c", WATCHED + code, *map(str, words)], capture_output=True, check=False,
                          text=True)  # fmt: skip


def test_the_watch_sees_connections():
    code = "import socket; socket.socket().connect(('127.0.0.1', 9))"
    assert watched(code).returncode == 9
    assert "socket.connect" in watched(code).stdout


@pytest.mark.parametrize("words", [
    ["--help"],
    ["export", "RUN", "--format", "onnx", "--out", "OUT"],
    ["export", "RUN", "--format", "openvino", "--half", "--out", "OUT"],
    ["export", "RUN", "--format", "openvino", "--int8", "--max-drop", "1", "--data", "DATA", "--out", "OUT"],
    ["evaluate", "RUN", "DATA", "--bootstrap", "10"],
    ["detect", "RUN", "DATA/JPEGImages", "--out", "OUT"],
    ["check", "DATA"],
    ["train", "DATA", "--network", "nano", "--size", "96", "--steps", "2", "--anchors", "2", "--out", "OUT"],
    ["benchmark", "RUN", "--rounds", "1", "--batch", "2"],
], ids=["help", "onnx", "openvino", "int8", "evaluate", "detect", "check", "train", "benchmark"])  # fmt: skip
def test_commands_call_nobody(run, squares, tmp_path, words):
    places = {"RUN": run, "OUT": tmp_path / "m", "DATA": squares, "DATA/JPEGImages": squares / "JPEGImages"}
    done = watched(NANO + "sys.exit(main(sys.argv[1:]))", *(places.get(word, word) for word in words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CALLED" not in done.stdout  # by a process of its own


@pytest.mark.parametrize("runtime", ["torch", "openvino", "onnxruntime"])
def test_a_detector_calls_nobody(run, squares, runtime):
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    code = "Detector(sys.argv[1], sys.argv[2])(sys.argv[3])"
    done = watched(code, run, runtime, squares / "JPEGImages" / "test000.png")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CALLED" not in done.stdout  # by a process of its own
