"""What the tests share: reference numbers, real images, and one small trained run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # steps this small only lose by sharing, in processes that tests start as well

from lookonce.model import zoo
from sets import nano, write_squares

SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = Path(__file__).parent / "golden"
CASES = Path(__file__).parent / "cases"
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"the reference images are not at {SHARED}")


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory):
    """A cache of the tests' own, in processes that they start as well."""
    os.environ["LOOKONCE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield Path(os.environ["LOOKONCE_CACHE"])
    del os.environ["LOOKONCE_CACHE"]


@pytest.fixture(autouse=True, scope="session")
def small_network():
    """The zoo with `nano` in it, so that whole runs take seconds."""
    zoo.DETECTORS["nano"] = nano
    yield
    del zoo.DETECTORS["nano"]


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A Pascal VOC set of red and blue squares: 24 train, 8 val, 8 test."""
    return write_squares(tmp_path_factory.mktemp("data") / "squares", {"train": 24, "val": 8, "test": 8})


@pytest.fixture(scope="session")
def run(squares, tmp_path_factory):
    """A finished run on the squares."""
    from lookonce import train

    out = tmp_path_factory.mktemp("runs")
    return train(squares, network="nano", size=96, epochs=60, batch_size=4, anchors=2, learning_rate=5e-3, out=out)


@pytest.fixture(scope="session")
def grey_run(squares, tmp_path_factory):
    """A finished run of a network that reads grey images, its cells 16 px wide."""
    from lookonce import train
    from lookonce.model.darknet.cfg import Cfg, write_cfg

    out = tmp_path_factory.mktemp("grey")
    layers = nano(2, ((1.0, 1.0),))
    layers = (*layers[:8], *layers[10:])  # without the last pool
    (out / "grey.cfg").write_text(write_cfg(Cfg(layers, 96, 96, 1)))
    return train(squares, network=str(out / "grey.cfg"), size=96, epochs=12, batch_size=4, anchors=2,
                 learning_rate=5e-3, out=out, name="grey")  # fmt: skip


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The run as m.onnx, m.xml with its .bin, and raw.onnx: tracing takes seconds, so once for all."""
    from lookonce import export

    folder = tmp_path_factory.mktemp("exported")
    export(run, "onnx", out=folder / "m")
    export(run, "openvino", out=folder / "m")
    export(run, "onnx", raw=True, out=folder / "raw")
    return folder
