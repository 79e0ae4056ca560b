"""No command opens a connection that was not asked for one: OpenVINO and NNCF would, if used in their usual way.

In processes of their own, where an audit hook stops the first socket, and the first process that could open one.
"""

import json
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
from lookonce.model import zoo
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


COMMANDS = [
    ["--help"],
    ["check", "DATA"],
    ["detect", "RUN", "DATA/JPEGImages", "--out", "OUT/detected"],
    ["evaluate", "RUN", "DATA", "--bootstrap", "10"],
    ["train", "DATA", "--network", "nano", "--size", "96", "--steps", "2", "--anchors", "2", "--out", "OUT"],
    ["export", "RUN", "--format", "onnx", "--out", "OUT/m"],
    ["export", "RUN", "--format", "openvino", "--half", "--out", "OUT/m"],
    ["export", "RUN", "--format", "openvino", "--int8", "--max-drop", "1", "--data", "DATA", "--out", "OUT/8"],
    ["benchmark", "RUN", "--rounds", "1", "--batch", "2"],
]
ONE_BY_ONE = """
import json
for words in json.loads(sys.argv[1]):
    print("NOW", words, flush=True)
    assert main(words) == 0
"""


def test_commands_call_nobody(run, squares, tmp_path):
    places = {"RUN": str(run), "OUT": str(tmp_path), "DATA": str(squares)}
    given = [["/".join(places.get(part, part) for part in word.split("/")) for word in words] for words in COMMANDS]
    done = watched(NANO + ONE_BY_ONE, json.dumps(given))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("NOW") == len(COMMANDS)
    assert "CALLED" not in done.stdout  # by a process of its own


@pytest.mark.parametrize("backend", ["torch", "openvino", "onnxruntime"])
def test_a_detector_calls_nobody(run, squares, backend):
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    code = "Detector(sys.argv[1], sys.argv[2])(sys.argv[3])"
    done = watched(code, run, backend, squares / "JPEGImages" / "test000.png")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CALLED" not in done.stdout  # by a process of its own
