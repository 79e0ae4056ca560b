"""Tests of lookonce.server.client: it gives what a Detector gives, bit for bit."""

import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
from PIL import Image

from lookonce import Client, Detector, UserError
from lookonce.errors import ImageError
from lookonce.model.postprocess import Selection
from served import Held, serving, until


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as made:
        yield made


def same(found, known):
    np.testing.assert_array_equal(found.boxes, known.boxes)
    np.testing.assert_array_equal(found.scores, known.scores)
    np.testing.assert_array_equal(found.labels, known.labels)
    assert found.class_names == known.class_names
    assert found.file == known.file


def test_everything_that_a_detector_takes_gives_what_the_detector_gives(client, detector, files):
    file = files[0]
    image = Image.open(file)
    for given in (file, str(file), file.read_bytes(), image, np.asarray(image), np.asarray(image.convert("L"))):
        same(client(given), detector(given))
    with file.open("rb") as opened:
        found = client(opened)
    same(found, detector(file.read_bytes()))
    for found, known in zip(client(files), detector(files), strict=True):
        same(found, known)
    assert client([]) == []


def test_thresholds_and_classes(client, server, detector, files):
    same(client(files[0], threshold=0.02, labels="red"), detector(files[0], threshold=0.02, labels="red"))
    with Client(server.url, threshold=0.02) as lower:
        same(lower(files[0]), detector(files[0], threshold=0.02))
    with pytest.raises(UserError, match=r"threshold: '3\.0'; expected a number from 0 to 1"):
        client(files[0], threshold=3.0)
    with pytest.raises(UserError, match="classes: 'green'; expected one of blue, red"):
        client(files[0], labels=["green"])


def test_files_keep_their_order_and_unreadable_ones_are_errors_in_their_place(client, detector, files, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    given = [*files, tmp_path / "text.png", tmp_path / "none.png", *files * 4]
    found = list(client.detect_files(given))
    assert [path for path, _, _ in found] == [str(path) for path in given]
    for (_, image, ours), (_, known_image, known) in zip(found, detector.detect_files(given), strict=True):
        assert isinstance(image, ImageError) == isinstance(known_image, ImageError)
        assert ours.to_json() == known.to_json()
    lower = Selection(0.02)
    [[_, _, ours]], [[_, _, known]] = client.detect_files(files[:1], lower), detector.detect_files(files[:1], lower)
    same(ours, known)


def test_it_may_be_called_from_several_threads(client, detector, files):
    known = {file: detector(file) for file in files}
    with ThreadPoolExecutor(16) as pool:
        for file, found in zip(files * 6, pool.map(client, files * 6), strict=True):
            same(found, known[file])


def test_it_says_what_it_is(client, server, detector):
    assert client.name == f"{server.url}/v1/models/squares"
    assert client.labels == detector.labels
    assert client.digest == detector.digest
    assert repr(client).startswith(f"Client({server.url}/v1/models/squares: openvino ")
    np.testing.assert_allclose(client.thresholds, detector.thresholds, atol=1e-6)


def test_an_address_may_name_the_model(run, files):
    with serving({"low": lambda: Detector(run, threshold=0.01), "high": lambda: Detector(run, threshold=0.99)}) as made:
        assert len(Client(made.url)(files[0])) == len(Client(made.url, "low")(files[0])) > 0
        assert len(Client(f"{made.url}/v1/models/high")(files[0])) == len(Client(made.url, "high")(files[0])) == 0
        with pytest.raises(UserError, match=r"model: 'none'; http.* has low, high"):
            Client(made.url, "none")


def test_a_busy_server_is_asked_again(detector, files):
    held = Held(detector.backend)
    with serving({"m": lambda: Detector(held)}, batch=1, queue=1) as running, Client(running.url) as client:
        held.gate.clear()
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(client, files[0]) for _ in range(8)]
            until(lambda: running.shared.metrics.rejected.labels("busy")._value.get() >= 3)
            held.gate.set()
            for job in jobs:
                same(job.result(), detector(files[0]))


def test_the_token_is_given_or_in_the_environment(detector, files, monkeypatch):
    monkeypatch.delenv("LOOKONCE_TOKEN", raising=False)
    with serving({"m": lambda: Detector(detector.backend)}, token="12345678") as running:
        with pytest.raises(UserError, match="the token is missing or wrong"):
            Client(running.url)
        same(Client(running.url, token="12345678")(files[0]), detector(files[0]))
        monkeypatch.setenv("LOOKONCE_TOKEN", "12345678")
        same(Client(running.url)(files[0]), detector(files[0]))


@pytest.mark.parametrize("url, message", [
    ("http://127.0.0.1:9", "http://127.0.0.1:9: does not answer .*; is it the address of lookonce serve?"),
    ("127.0.0.1:8000", "url: '127.0.0.1:8000'; expected an address such as http://127.0.0.1:8000"),
    ("ftp://a", "url: 'ftp://a'; expected"), ("", "url: ''; expected"),
])  # fmt: skip
def test_what_is_no_server_is_one_line(url, message):
    with pytest.raises(UserError, match=message):
        Client(url)


def test_another_server_is_recognized(tmp_path):
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Quiet) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="answers 404, and not as lookonce serve does"):
            Client(f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_offline_forbids_it(server, monkeypatch):
    monkeypatch.setenv("LOOKONCE_OFFLINE", "1")
    with pytest.raises(UserError, match="not asked, because of --offline"):
        Client(server.url)


def test_what_is_no_image_is_an_error(client, tmp_path):
    with pytest.raises(ImageError, match=r"none\.jpg: no such file"):
        client(tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ImageError, match=r"text\.jpg: a text file, not an image"):
        client(tmp_path / "text.jpg")
    with pytest.raises(UserError, match="is not an image"):
        client(3.5)


def test_images_of_16_bits_are_scaled_by_the_server(client, detector):
    deep = (np.random.default_rng(0).random((96, 96)) * 65535).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG")
    same(client(deep, threshold=0.01), detector(file.getvalue(), threshold=0.01))


def test_it_loads_no_torch_and_nothing_of_the_server():
    code = """
import sys
import lookonce
lookonce.Client
heavy = {"torch", "openvino", "onnx", "onnxruntime", "starlette", "uvicorn", "prometheus_client", "matplotlib"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
