"""The shape of the code itself: imports point down, functions stay short, tests mirror, errors need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "src" / "lookonce"
RANK = {
    name: rank
    for rank, names in enumerate([
        "errors cores arrays convolve data.record diagnosis darknet.words exporting.options offers mirror "
        "data.image_bytes",
        "boxes tree data.json_text runtimes.settings",
        "speed.rounds speed.machine",
        "layers files archives fetching region zoo resize data.pictures data.paper data.gathering detections",
        "zoo darknet.cfg loss anchors coverage data.finding data.coco data.yolo_text data.looking",
        "matching precision_recall",
        "view.draw view.page",
        "darknet.origin",
        "network description",
        "darknet.weights data.voc data.coco_folder data.yolo_folder data.canvas",
        "metrics coco_metrics confusion view.plots postprocess downloading sightings onnx_form",
        "error_kinds drop speed.result speed.noise channels",
        "data.digits data.voc_folder darknet.pair",
        "data.catalog data.loader model_file analysis",
        "runtimes.torch runtimes.openvino runtimes.onnxruntime",
        "anchors_command data.warp runtimes.opening data.converting findings",
        "detection_files view.evaluation_figures view.examples",
        "detector training.recipes view.report view.data_figures view.evaluation_report check_report",
        "evaluation training.schedule training.options training.plan training.history training.advice view.data_report",
        "training.module training.saving training.features training.transfer detect checking exporting.graph",
        "exporting.parity exporting.int8",
        "exporting.openvino",
        "exporting.onnx exporting.darknet",
        "exporting.command speed.networks speed.files",
        "training.callbacks training.validation",
        "training.watch training.trunk",
        "training.engine",
        "training.run training.memorising",
        "demo diagnosing speed.steps pruning",
        "benchmarking",
        "cli",
    ])
    for name in names.split()
}  # fmt: skip
COMMANDS = {"train", "evaluate", "detect", "demo", "anchors", "cluster_anchors", "export", "convert", "check",
            "diagnose", "benchmark", "prune"}  # fmt: skip
"""Public commands may have more parameters than six."""


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text(encoding="utf-8"))


def functions():
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lookonce"):
            inside = (node.module or "").removeprefix("lookonce").removeprefix(".")
            for alias in node.names:
                whole = f"{inside}.{alias.name}".strip(".")
                yield whole if whole in RANK else inside
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("lookonce.") for a in node.names if a.name.startswith("lookonce."))


def test_imports_point_down():
    assert {name for name, _ in modules()} == set(RANK)
    wrong = [f"{name} -> {other}" for name, tree in modules() for other in imported(tree) if other
             and RANK[other] >= RANK[name]]  # fmt: skip
    assert not wrong


def test_data_knows_no_network_and_loss_no_network():
    for name, tree in modules():
        if name.startswith("data."):
            assert not set(imported(tree)) & {"region", "network", "anchors"}, name
        if name == "loss":
            assert "network" not in set(imported(tree))


def test_functions_take_few_parameters():
    many = [f"{m}.{f.name}" for m, f in functions() if f.name not in COMMANDS
            and len([a for a in (*f.args.args, *f.args.kwonlyargs) if a.arg not in ("self", "cls")]) > 7]  # fmt: skip
    assert not many


def test_public_functions_are_documented_and_annotated():
    poor = []
    for name, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                poor += [] if ast.get_docstring(node) else [f"{name}.{node.name}"]
    assert not poor


def test_only_the_command_line_prints():
    loud = [m for m, tree in modules() if m != "cli" for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"]  # fmt: skip
    assert not loud


def test_one_module_opens_connections():
    wires = {"http", "http.client", "requests", "socket", "ssl", "urllib.request"}
    found = {m for m, tree in modules() for n in ast.walk(tree)
             if (isinstance(n, ast.Import) and {a.name for a in n.names} & wires)
             or (isinstance(n, ast.ImportFrom) and n.module in wires)}  # fmt: skip
    assert found == {"mirror"}


def test_tests_mirror_the_source():
    missing = [name for name, _ in modules() if not (TESTS / f"test_{name.replace('.', '_')}.py").is_file()]
    assert not missing


NO_TORCH = """boxes region postprocess detector runtimes.openvino
errors layers zoo darknet.cfg darknet.origin data.record data.voc data.catalog downloading cli"""


@pytest.mark.parametrize("name", NO_TORCH.split())
def test_some_modules_need_no_torch(name):
    code = f"import sys, lookonce.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
