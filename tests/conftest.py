"""What the tests share: reference numbers, real images, and one small trained run."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

os.environ["OMP_NUM_THREADS"] = "1"  # steps this small only lose by sharing, in processes that tests start as well

from lookonce.model import zoo
from sets import SQUARE_TREE, nano, write_labelled, write_squares

SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = Path(__file__).parent / "golden"
CASES = Path(__file__).parent / "cases"
needs_shared = pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"the reference images are not at {SHARED}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Escape names of files that are not UTF-8 in what a test showed: pytest-xdist cannot send them."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


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


@pytest.fixture(autouse=True, scope="session")
def processor_without_int8():
    """A processor that gains nothing from int8, so that trainings end without it on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lookonce.training.duration.has_int8", lambda: False)
        patch.setattr("lookonce.inference.backends.int8_form.has_int8", lambda: False)
        yield


@pytest.fixture
def processor_with_int8(monkeypatch):
    """A processor that gains from int8."""
    monkeypatch.setattr("lookonce.training.duration.has_int8", lambda: True)
    monkeypatch.setattr("lookonce.inference.backends.int8_form.has_int8", lambda: True)


@pytest.fixture(scope="session")
def published_weights(tmp_path_factory):
    """The bytes of Darknet weights of a small network with 80 classes."""
    from lookonce.model.darknet.files import save_darknet
    from lookonce.model.network import Network

    folder = tmp_path_factory.mktemp("published")
    save_darknet(Network(nano(80, zoo.VOC_ANCHORS)), folder / "x.cfg", folder / "x.weights")
    return (folder / "x.weights").read_bytes()


@pytest.fixture
def published(published_weights, tmp_path, monkeypatch):
    """The only published model, x: called with answers of a server on this machine, its mirrors; the cache is empty."""
    from lookonce.data import download
    from lookonce.inference import pretrained_models
    from mirrors import remote_file, serving

    monkeypatch.setenv("LOOKONCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKONCE_OFFLINE", "0")  # main(["--offline", ...]) sets it
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(published_weights) as server:

        def publish(*answers):
            weights = remote_file(server, *answers)
            first, layers = pretrained_models.MODELS[0], nano(80, zoo.VOC_ANCHORS)
            model = replace(first, weights=weights, build=lambda: layers, side=96)
            monkeypatch.setattr(pretrained_models, "MODELS", (model,))
            return server

        yield publish


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """A Pascal VOC set of red and blue squares: 24 train, 8 val, 8 test."""
    return write_squares(tmp_path_factory.mktemp("data") / "squares", {"train": 24, "val": 8, "test": 8})


def built_once(factory, name, build):
    """A folder of this process's own with what `build(folder)` writes: one process builds it, the others copy it."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            partial = factory.mktemp(name)
            build(partial)
            partial.rename(shared)
    return Path(shutil.copytree(shared, factory.mktemp(name), dirs_exist_ok=True))


@pytest.fixture(scope="session")
def run(squares, tmp_path_factory):
    """A finished run on the squares."""
    from lookonce import train

    def build(out):
        train(squares, network="nano", size=96, epochs=60, batch_size=4, anchors=2, learning_rate=5e-3, out=out,
              keep_checkpoints=True)  # fmt: skip

    return built_once(tmp_path_factory, "runs", build) / "squares-1"


@pytest.fixture(scope="session")
def grey_run(squares, tmp_path_factory):
    """A finished run of a network that reads grey images, its cells 16 px wide."""
    from lookonce import train
    from lookonce.model.darknet.cfg import Cfg, write_cfg

    def build(out):
        layers = nano(2, ((1.0, 1.0),))
        layers = (*layers[:8], *layers[10:])  # without the last pool
        (out / "grey.cfg").write_text(write_cfg(Cfg(layers, 96, 96, 1)))
        train(squares, network=str(out / "grey.cfg"), size=96, epochs=12, batch_size=4, anchors=2,
              learning_rate=5e-3, out=out, name="grey")  # fmt: skip

    return built_once(tmp_path_factory, "grey", build) / "grey"


@pytest.fixture(scope="session")
def tree_run(squares, tmp_path_factory):
    """A finished run whose classes are a tree: red and blue squares with boxes, green ones in whole images."""
    from lookonce import train

    def build(out):
        (out / "squares.yaml").write_text(SQUARE_TREE)
        whole = write_labelled(out / "whole", {"green": 6})
        train(squares, tree=out / "squares.yaml", image_labels=whole, network="nano", size=96, epochs=15, batch_size=4,
              anchors=2, learning_rate=5e-3, out=out, name="tree")  # fmt: skip

    return built_once(tmp_path_factory, "tree", build) / "tree"


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    """The run as m.onnx, m.xml with its .bin, and raw.onnx: tracing takes seconds, so once for all."""
    from lookonce import export

    def build(folder):
        export(run, "onnx", out=folder / "m")
        export(run, "openvino", out=folder / "m")
        export(run, "onnx", raw=True, out=folder / "raw")

    return built_once(tmp_path_factory, "exported", build)
