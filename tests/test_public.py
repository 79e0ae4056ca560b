"""Mirrors src/lookonce/__init__.py: the names that people import."""

import subprocess
import sys

import pytest

import lookonce


def test_every_public_name_is_there_and_there_are_not_many():
    assert all(getattr(lookonce, name) is not None for name in lookonce.__all__)
    assert len(lookonce.__all__) <= 16
    assert set(lookonce.__all__) == set(lookonce._HOMES)


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(AttributeError, match="has no attribute 'yolo'; it has Anchors"):
        _ = lookonce.yolo


def test_no_module_hides_a_public_function():
    code = "import lookonce, lookonce.demo; assert all(callable(getattr(lookonce, n)) for n in lookonce.__all__)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not {module.rpartition(".")[2] for module in lookonce._HOMES.values()} & set(lookonce.__all__)


def test_import_is_instant():
    code = "import sys, lookonce; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
