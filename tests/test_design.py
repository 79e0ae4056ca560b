"""Rules of the code itself. The order of the packages is import-linter's contract (pyproject.toml, `make lint`)."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent / "src" / "lookonce"
MAX_PARAMETERS = 7
BY_NAME = {"data.anchors.cluster_anchors", "inference.detector.__init__"}  # public, and called with names
"""Parameters of a function. Public functions of commands/ and the Python call cluster_anchors may have more."""


@cache
def modules():
    """Every module but __init__.py: [(name below lookonce, its tree)]."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "__init__.py":
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found.append((name, ast.parse(path.read_text(encoding="utf-8"))))
    return found


NAMES = {name for name, _ in modules()}


def functions():
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def imported(tree):
    """Modules that a module imports when it runs: those under TYPE_CHECKING do not count."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    typing = {id(node) for block in blocks for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in typing:
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
    many = []
    for module, function in functions():
        public_command = module.startswith("commands.") and not function.name.startswith("_")
        names = [a.arg for a in (*function.args.args, *function.args.kwonlyargs) if a.arg not in ("self", "cls")]
        if len(names) > MAX_PARAMETERS and not public_command and f"{module}.{function.name}" not in BY_NAME:
            many.append(f"{module}.{function.name}")
    assert not many


def test_public_functions_and_classes_have_docstrings_and_annotations():
    poor = []
    for name, tree in modules():
        poor += [] if ast.get_docstring(tree) else [name]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                poor += [] if ast.get_docstring(node) else [f"{name}.{node.name}"]
                if isinstance(node, ast.FunctionDef):
                    arguments = (*node.args.args, *node.args.kwonlyargs)
                    complete = node.returns is not None and all(a.annotation for a in arguments)
                    poor += [] if complete else [f"{name}.{node.name}: annotations"]
    assert not poor


def test_only_the_command_line_prints():
    loud = [m for m, tree in modules() if m != "cli" for n in ast.walk(tree)
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"]  # fmt: skip
    assert not loud


def test_few_modules_open_connections():
    """The server's modules do so to a server that the user names: of lookonce, or of Label Studio; or they listen. The
    lake's module asks whether the Ray cluster that the user names is there."""
    network = {"http", "http.client", "httpx", "requests", "socket", "ssl", "urllib.request"}
    found = {m for m, tree in modules() for n in ast.walk(tree)
             if (isinstance(n, ast.Import) and {a.name for a in n.names} & network)
             or (isinstance(n, ast.ImportFrom) and n.module in network)}  # fmt: skip
    assert found == {
        "data.download",
        "inference.lake.ray_actors",
        "server.client",
        "server.connections",
        "server.label_studio",
        "server.live_page",
        "training.ranks",
    }


def test_every_module_has_a_test_file_of_its_name():
    missing = []
    for name in NAMES - {"__main__"}:
        *packages, module = name.split(".")
        if not TESTS.joinpath(*packages, f"test_{module}.py").is_file():
            missing.append(name)
    assert not missing


NO_TORCH = """errors cli model.boxes model.layers model.zoo model.heads.region model.postprocess model.model_file
model.onnx_graph model.darknet.cfg data.dataset data.read data.formats.voc data.download inference.detector
inference.backends.openvino commands.detect"""


def test_reading_data_and_detecting_with_openvino_load_no_torch():
    code = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"lookonce.{name}")
    assert "torch" not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", code, *NO_TORCH.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
