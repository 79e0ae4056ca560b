"""The shape of the code itself: no circular imports, few parameters, tests mirror, a detector needs no torch.

The order of the packages is a contract of import-linter (pyproject.toml, make lint).
"""

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
    """Modules that a module imports when it runs: what stands under TYPE_CHECKING does not count."""
    typed = {id(n) for block in ast.walk(tree) if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
             for n in ast.walk(block)}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in typed:
            continue
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
    wires = {"http", "http.client", "httpx", "requests", "socket", "ssl", "urllib.request"}
    found = {m for m, tree in modules() for n in ast.walk(tree)
             if (isinstance(n, ast.Import) and {a.name for a in n.names} & wires)
             or (isinstance(n, ast.ImportFrom) and n.module in wires)}  # fmt: skip
    assert found == {"data.download"}


def test_tests_mirror_the_source():
    """tests/<package>/test_<module>.py, or several files test_<module>_<topic>.py of one module."""
    missing = [name for name, _ in modules() if name != "__main__" and not list(
        (TESTS / Path(*name.split(".")[:-1])).glob(f"test_{name.split('.')[-1]}*.py"))]  # fmt: skip
    assert not missing


NO_TORCH = """errors cli model.boxes model.layers model.zoo model.heads.region model.postprocess model.model_file model.onnx_graph
model.darknet.cfg data.dataset data.read data.formats.voc data.download inference.detector inference.backends.openvino"""


@pytest.mark.parametrize("name", NO_TORCH.split())
def test_some_modules_need_no_torch(name):
    code = f"import sys, lookonce.{name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
