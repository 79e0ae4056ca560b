"""No command opens a network connection unasked. OpenVINO and NNCF would, if they were used in their usual way.

Commands run in a process of their own, where an audit hook ends it at the first connection.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

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
    done = watched(NANO + ONE_BY_ONE, json.dumps(given))
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
