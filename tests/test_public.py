"""Tests of lookonce: the public names."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lookonce
from lookonce.cli import COMMANDS


def test_every_public_name_is_there_and_there_are_not_many():
    assert all(getattr(lookonce, name) is not None for name in lookonce.__all__)
    assert len(set(lookonce.__all__) - set(COMMANDS)) <= 16
    assert sorted(name for names in lookonce._MODULES.values() for name in names) == sorted(lookonce.__all__)


def test_every_command_is_a_public_function_of_its_name():
    for name in COMMANDS:
        assert getattr(lookonce, name).__module__ == f"lookonce.commands.{name}"
    assert set(COMMANDS) < set(dir(lookonce))


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(AttributeError, match="has no attribute 'yolo'; it has Anchors"):
        _ = lookonce.yolo


def test_type_checkers_see_every_public_name():
    tree = ast.parse(Path(lookonce.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {f"{node.module}.{alias.name}" for node in block.body for alias in node.names}
    assert typed == {f"lookonce.{module}.{name}" for module, names in lookonce._MODULES.items() for name in names}


PYRIGHT = shutil.which("pyright")


@pytest.mark.skipif(PYRIGHT is None, reason="pyright is not installed: npm install --global pyright")
def test_pyright_accepts_what_users_write_and_flags_what_is_wrong(tmp_path):
    code = Path(__file__).parent / "user_code.py"
    shutil.copy(code, tmp_path)
    for page in ("README.md", "docs/python.md"):
        blocks = re.findall(r"```python\n(.*?)```", (code.parents[1] / page).read_text(encoding="utf-8"), re.DOTALL)
        for number, block in enumerate(blocks):
            (tmp_path / f"{Path(page).stem}_{number}.py").write_text(block, encoding="utf-8")
    source = Path(lookonce.__file__).parents[1]
    config = {"extraPaths": [str(source)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config | {"reportUnusedExpression": False}))
    words = [PYRIGHT, "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    problems = json.loads(done.stdout)["generalDiagnostics"]
    said = {problem["range"]["start"]["line"]: problem["message"] for problem in problems}
    assert [problem for problem in problems if Path(problem["file"]).name != code.name] == []
    lines = code.read_text(encoding="utf-8").splitlines()
    wrong = {n: line.partition("# wrong: ")[2] for n, line in enumerate(lines) if "# wrong: " in line}
    assert said.keys() == wrong.keys(), said
    assert all(word in said[n] for n, word in wrong.items()), said


def test_no_module_hides_a_public_function():
    modules = {path.stem for path in Path(lookonce.__file__).parent.iterdir()}
    assert not modules & set(lookonce.__all__)


def test_import_is_instant():
    code = "import sys, lookonce; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
