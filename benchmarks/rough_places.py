"""Run every command in rough places, and report its exit code and what of its output is not as promised.

Places: output in cp1252; the C locale; a working folder with csv.py, json.py and lookonce/ of a stranger; no network
(Linux, `unshare`). The data set has classes and files of hostile names; its model is trained here.
Usage: python benchmarks/rough_places.py [place ...]
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
NAMES = [
    "[/x]",
    "[bold]cat",
    "$\\frac{1}{",
    "two\nlines",
    "half \ud800",
    "\x1b[31mred",
    "x" * 2000,
    "кот 猫 \U0001f408",
]
FILES = [b"caf\xe9.png", b"[red]x.png", b"esc\x1b[31m.png", b"new\nline.png", b"$x_.png", b"%s a.png"]
PLACES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "hostile folder": {},
    "no network": {},
}
COMMANDS = [
    ["--help"], ["--version"], ["check", "DATA", "--report", "OUT/check.html"], ["check", "DATA", "--json"],
    ["anchors", "DATA", "--plot", "OUT/anchors.png"],
    ["convert", "DATA", "OUT/voc", "--format", "voc"], ["convert", "DATA", "OUT/coco", "--format", "coco"],
    ["convert", "DATA", "OUT/yolo", "--format", "yolo"],
    ["train", "DATA", "--network", "nano.cfg", "--size", "64", "--steps", "3", "--batch-size", "2", "--out", "OUT",
     "--name", "run", "--val-split", "train", "--keep-checkpoints"],
    ["train", "--resume", "OUT/run"],
    ["evaluate", "OUT/run", "DATA", "--split", "all", "--bootstrap", "5", "--report", "OUT/evaluate.html"],
    ["compare", "OUT/run", "OUT/run", "DATA", "--split", "all", "--bootstrap", "5"],
    ["diagnose", "OUT/run", "DATA"], ["explain", "DATA", "OUT/run", "--split", "all", "--out", "OUT/explain.html"],
    ["detect", "OUT/run", "DATA/images", "--out", "OUT/found", "--threshold", "0.001", "--save", "csv", "coco"],
    ["export", "OUT/run", "--format", "onnx", "--out", "OUT/m"],
    ["export", "OUT/run", "--format", "openvino", "--out", "OUT/m"],
    ["prune", "OUT/run", "DATA", "--ratio", "0.2", "--steps", "2", "--max-drop", "0.99", "--out", "OUT"],
    ["benchmark", "OUT/run", "--rounds", "1"], ["cache"], ["models"], ["download"], ["demo", "--help"],
]  # fmt: skip
CHILD = """
import sys
sys.path[:] = [place for place in sys.path if place]  # as for the installed program
import json, traceback
from lookonce.cli import main
for words in json.loads(sys.argv[1]):
    try:
        code = main(words)
    except BaseException:
        traceback.print_exc()
        code = 99
    for stream in (sys.stdout, sys.stderr):
        print("\\n@@@", code, file=stream, flush=True)
"""


def write_data(root: Path) -> None:
    """A COCO set of these classes; its files have hostile names where the system allows them."""
    (root / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    for n, name in enumerate(FILES):
        plain = name if sys.platform == "linux" else f"{n}.png".encode()
        with open(os.path.join(os.fsencode(root / "images"), plain), "wb") as file:
            Image.fromarray(draw.integers(0, 255, (64, 64, 3), np.uint8)).save(file, "PNG")
    names = sorted(os.listdir(root / "images"))
    content = {
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)],
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n % len(names), "category_id": n % len(NAMES), "bbox": [9, 9, 30, 40]}
                        for n in range(2 * len(NAMES))],
    }  # fmt: skip
    (root / "instances.json").write_text(json.dumps(content))


def write_cfg(file: Path) -> None:
    """A network small enough to train at once."""
    sys.path.insert(0, str(TESTS))
    from lookonce.model.darknet import cfg
    from sets import nano

    file.write_text(cfg.write_cfg(cfg.Cfg(nano(len(NAMES), ((1.0, 1.0),)), 64, 64)))


def write_traps(folder: Path) -> None:
    """Modules of a stranger: whoever imports them leaves a mark."""
    mark = f"open({str(folder / 'TRAPPED')!r}, 'a').write(__name__)\nraise SystemExit('code of the current folder')\n"
    (folder / "lookonce").mkdir()
    for name in ("csv.py", "json.py", "torch.py", "lookonce/__init__.py", "lookonce/__main__.py", "sitecustomize.py"):
        (folder / name).write_text(mark)


def judged(words: list[str], code: int, out: bytes, err: bytes) -> str:
    """Return what is wrong with the output of a command; empty: nothing."""
    wrong = []
    last = (err.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
    if b"Traceback" in err + out:
        wrong.append(f"traceback: {last}")
    elif code not in (0, 1):
        wrong.append(last)
    if b"\x1b" in out + err:
        wrong.append("an escape sequence")
    if "--json" in words and not wrong:
        json.loads(out.decode("utf-8", "replace"))
    return "; ".join(wrong)


def run(place: str, base: Path) -> None:
    """Run the commands in one process, since each would import torch."""
    here = base / "here"
    here.mkdir()
    write_data(base / "data")
    write_cfg(here / "nano.cfg")
    if place == "hostile folder":
        write_traps(here)
    environment = {**os.environ, **PLACES[place], "LOOKONCE_CACHE": str(base / "cache")}
    environment.pop("PYTHONSAFEPATH", None)
    given = [[w.replace("DATA", str(base / "data")).replace("OUT", str(base / "out")) for w in c] for c in COMMANDS]
    start = ["unshare", "--map-root-user", "--net"] if place == "no network" else []
    done = subprocess.run([*start, sys.executable, "-c", CHILD, json.dumps(given)], cwd=here, env=environment,
                          capture_output=True, check=False)  # fmt: skip
    outs, errs = (re.split(rb"\n@@@ (\d+)\r?\n", stream) for stream in (done.stdout, done.stderr))
    for number, command in enumerate(COMMANDS):
        if 2 * number + 1 >= len(outs):
            print(f"  the process ended: {done.stderr[-300:].decode(errors='replace')}")
            return
        code = int(outs[2 * number + 1])
        verdict = judged(command, code, outs[2 * number], errs[2 * number]) or "as promised"
        print(f"  {code} {' '.join(command)[:70]:70} {verdict}", flush=True)
    if (here / "TRAPPED").exists():
        print("  CODE OF THE CURRENT FOLDER RAN:", (here / "TRAPPED").read_text())


def main() -> None:
    for place in sys.argv[1:] or PLACES:
        print(f"{place}:", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            run(place, Path(folder))


if __name__ == "__main__":
    main()
