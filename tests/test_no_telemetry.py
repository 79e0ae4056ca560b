"""No command opens a network connection unasked. OpenVINO and NNCF would, if they were used in their usual way.

Commands run in a process of their own, where an audit hook ends it at the first connection. Compiled libraries raise no
audit events, so on Linux the process also has a network namespace of its own, which counts what it was asked to send,
and an empty home folder, in which ONNX Runtime would keep the id of the device that it reports.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

import lookonce

SOURCE = Path(lookonce.__file__).parent
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


SENT = """
lines = [line.split() for line in open("/proc/net/snmp") if line.startswith("Ip:")]
counts = dict(zip(*lines))
print("SENT", int(counts["OutRequests"]) + int(counts["OutNoRoutes"]))
"""
"""Packets that programs of this network namespace wanted to send. It has no connection, not even to itself."""


@cache
def namespace():
    """Return the words that start a program in a network namespace of its own; none where that is not permitted."""
    words = ["unshare", "--map-root-user", "--net"]
    permitted = shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True).returncode
    return words if permitted else []


def watched(code, *words, watch=WATCHED, isolated=False, **environment):
    command = [*(namespace() if isolated else []), sys.executable, "-c", watch + code, *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, text=True, env={**os.environ, **environment})


@pytest.mark.skipif(not namespace(), reason="this system permits no network namespaces")
def test_a_namespace_counts_what_raises_no_audit_event():
    code = """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        socket.socket(socket.AF_INET, kind).connect(("10.0.0.1", 9))
    except OSError:
        pass
"""
    assert watched(code + SENT, watch="", isolated=True).stdout == "SENT 2\n"


def test_onnxruntime_is_imported_in_one_place():
    pattern = re.compile(r"import onnxruntime\b|import_module\(.onnxruntime")
    found = [file.name for file in SOURCE.rglob("*.py") if pattern.search(file.read_text(encoding="utf-8"))]
    assert found == ["onnxruntime.py"]


def test_onnxruntime_keeps_no_id_of_the_device(tmp_path):
    """With its telemetry on, it writes one when it opens a session."""
    if not importlib.util.find_spec("onnxruntime"):
        pytest.skip("without onnxruntime")
    x, y = (make_tensor_value_info(name, 1, [1]) for name in "xy")
    made = make_model(make_graph([make_node("Relu", ["x"], ["y"])], "graph", [x], [y]), ir_version=9,
                      opset_imports=[make_opsetid("", 17)]).SerializeToString()  # fmt: skip
    code = f"import lookonce, onnxruntime; onnxruntime.InferenceSession({made!r}, providers=['CPUExecutionProvider'])"
    done = watched(code, watch="", HOME=str(tmp_path), ORT_DISABLE_TELEMETRY="0")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_watch_sees_connections():
    code = "import socket; socket.socket().connect(('127.0.0.1', 9))"
    done = watched(code)
    assert done.returncode == 9
    assert "socket.connect" in done.stdout


COMMANDS = [
    ["--help"],
    ["check", "DATA"],
    ["anchors", "DATA", "--plot", "OUT/anchors.png"],
    ["download"],
    ["models"],
    ["detect", "RUN", "DATA/JPEGImages", "--out", "OUT/detected"],
    ["evaluate", "RUN", "DATA", "--bootstrap", "10"],
    ["train", "DATA", "--network", "nano", "--size", "96", "--steps", "2", "--anchors", "2", "--out", "OUT"],
    ["export", "RUN", "--format", "onnx", "--out", "OUT/m"],
    ["export", "RUN", "--format", "openvino", "--half", "--out", "OUT/m"],
    ["export", "RUN", "--format", "openvino", "--int8", "--max-drop", "1", "--data", "DATA", "--out", "OUT/8"],
    ["benchmark", "RUN", "--rounds", "1", "--batch", "2"],
]
ONE_BY_ONE = """
import importlib.util
import json
for words in json.loads(sys.argv[1]):
    print("NOW", words, flush=True)
    assert main(words) == 0
"""


def test_commands_call_nobody(run, squares, tmp_path):
    places = {"RUN": str(run), "OUT": str(tmp_path), "DATA": str(squares)}
    given = [["/".join(places.get(part, part) for part in word.split("/")) for word in words] for words in COMMANDS]
    home = tmp_path / "home"
    home.mkdir()
    done = watched(NANO + ONE_BY_ONE + (SENT if namespace() else ""), json.dumps(given), isolated=True, HOME=str(home))
    assert not namespace() or "SENT 0\n" in done.stdout
    assert not list(home.glob("**/*icrosoft*"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("NOW") == len(COMMANDS)
    assert "CALLED" not in done.stdout  # by a process of its own


def test_detect_opens_a_connection_for_an_address_that_the_user_gives(run):
    done = watched("main(['detect', sys.argv[1], 'http://127.0.0.1:9/a.jpg'])", run)
    assert done.returncode == 9
    assert "socket." in done.stdout + done.stderr  # stdout is stderr while a command runs


def test_a_published_model_is_downloaded_when_it_is_named_and_not_offline(squares, tmp_path):
    code = """
import os
assert main([*sys.argv[1:], "--offline"]) == 2
os.environ["LOOKONCE_OFFLINE"] = "1"
assert main(sys.argv[1:]) == 2
os.environ["LOOKONCE_OFFLINE"] = "0"
print("NOW", file=sys.stderr, flush=True)
main(sys.argv[1:])
"""
    done = watched(code, "detect", "coco", squares / "JPEGImages" / "test000.png", "--out", tmp_path / "found")
    assert done.returncode == 9, done.stdout + done.stderr
    said = done.stdout + done.stderr  # stdout is stderr while a command runs
    offline, _, online = said.partition("NOW")
    assert "CALLED" not in offline
    assert "CALLED socket." in online
    assert "downloading https://" in online


def test_a_detector_calls_nobody(run, squares):
    backends = ["torch", "openvino", *(["onnxruntime"] if importlib.util.find_spec("onnxruntime") else [])]
    code = "for backend in sys.argv[3:]: Detector(sys.argv[1], backend)(sys.argv[2])"
    done = watched(code, run, squares / "JPEGImages" / "test000.png", *backends)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CALLED" not in done.stdout  # by a process of its own
