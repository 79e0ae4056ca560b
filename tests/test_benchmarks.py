"""Every benchmark finds what it imports: nobody runs them as often as tests."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = sorted(file.stem for file in (Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_can_be_imported(name):
    try:
        assert importlib.import_module(name).main
    except ModuleNotFoundError as error:
        if error.name.startswith("lookonce"):
            raise
        pytest.skip(f"{error.name} is not installed")
