"""The shape of the code itself: no circular imports, few parameters, tests mirror, errors need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "src" / "lookonce"
COMMANDS = {"train", "evaluate", "detect", "demo", "anchors", "cluster_anchors", "export", "convert", "check",
            "diagnose", "benchmark", "prune"}  # fmt: skip
"""Public commands may have more parameters than six."""


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text(encoding="utf-8"))


NAMES = {name for name, _ in modules()}


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
                yield whole if whole in NAMES else inside
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("lookonce.") for a in node.names if a.name.startswith("lookonce."))


def test_no_modules_import_each_other():
    reads = {name: {other for other in imported(tree) if other} for name, tree in modules()}
    while free := {name for name, others in reads.items() if not others & reads.keys()}:
        reads = {name: others for name, others in reads.items() if name not in free}
    assert not reads


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


NO_TORCH = """boxes region postprocess detector backends.openvino
errors layers zoo darknet.cfg darknet.origin data.record data.voc data.catalog downloading cli"""


@pytest.mark.parametrize("name", NO_TORCH.split())
def test_some_modules_need_no_torch(name):
    code = f"import sys, lookonce.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
