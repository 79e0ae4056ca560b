"""Tests of lookonce.server.label_studio. Requests are those that Label Studio sends to an ML backend."""

import base64
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx

from lookonce import Detector
from lookonce.server.label_studio import LabelStudio, Tags, read_config
from lookonce.server.limits import RequestError
from served import serving

CONFIG = """<View><Image name="photo" value="$picture"/>
<RectangleLabels name="objects" toName="photo"><Label value="Red" background="red"/><Label value="blue"/>
</RectangleLabels></View>"""


@contextmanager
def label_studio(content, seen):
    """A Label Studio that has one image, and what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, self.headers.get("Authorization")))
            if self.path == "/away":
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def task(address):
    return {"tasks": [{"id": 1, "data": {"picture": address}}], "label_config": CONFIG, "project": "1.2"}


def test_detections_become_boxes_in_percent_of_the_corner(http, detector, files):
    found = detector(files[0])
    assert len(found)
    address = "data:image/png;base64," + base64.b64encode(files[0].read_bytes()).decode()
    answer = http.post("/predict", json=task(address)).json()
    [prediction] = answer["results"]
    assert prediction["model_version"] == answer["model_version"]
    for one, region in zip(found, prediction["result"], strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("objects", "photo", "rectanglelabels")
        value = region["value"]
        corner = np.array([value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"]])
        np.testing.assert_allclose(corner / 100 * 96, one.box, atol=1e-3)  # the images are 96 x 96
        assert value["rectanglelabels"] == [{"red": "Red", "blue": "blue"}[one.name]]
        assert region["score"] == pytest.approx(one.score)
        assert (region["original_width"], region["original_height"]) == (96, 96)


def test_images_come_from_label_studio_with_its_key_and_from_nowhere_else(detector, files):
    seen = []
    with label_studio(files[0].read_bytes(), seen) as address:
        studio = LabelStudio(address, "key")
        with serving({"m": lambda: Detector(detector.backend)}, label_studio=studio) as running:
            for image in ("/data/upload/1/a.png", f"{address}/data/upload/1/a.png"):
                answer = httpx.post(f"{running.url}/predict", json=task(image)).json()
                assert len(answer["results"][0]["result"]) == len(detector(files[0]))
            assert seen == [("/data/upload/1/a.png", "Token key")] * 2
            for elsewhere in ("http://127.0.0.1:1/a.png", "//127.0.0.1:1/a.png", "file:///etc/passwd",
                              address + "@evil.example/a.png", "ftp://x/a"):  # fmt: skip
                answer = httpx.post(f"{running.url}/predict", json=task(elsewhere))
                assert answer.status_code == 400, elsewhere
                assert "not fetched" in answer.json()["detail"]
            assert httpx.post(f"{running.url}/predict", json=task("/away")).status_code == 502
            assert len(seen) == 3


def test_without_an_address_of_label_studio_nothing_is_fetched(http):
    answer = http.post("/predict", json=task("http://127.0.0.1:1/a.png"))
    assert answer.status_code == 400
    assert "start the server with --label-studio ADDRESS" in answer.json()["detail"]


def test_label_studio_connects(http, detector):
    assert http.get("/health").json() == {"status": "UP", "model_class": "lookonce"}
    version = http.post("/setup", json={"project": "1.2", "schema": CONFIG}).json()["model_version"]
    assert version == "lookonce-" + detector.digest.removeprefix("sha256:")[:12]


def test_the_configuration_names_the_boxes():
    assert read_config(CONFIG) == Tags("objects", "photo", "picture", ("Red", "blue"))


@pytest.mark.parametrize("text", ["", "<View>", "<View/>", '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>'])
def test_other_configurations_are_refused(text):
    with pytest.raises(RequestError, match="label_config: n"):
        read_config(text)


@pytest.mark.parametrize("content", [{}, {"tasks": 3}, {"tasks": [3]}, {"tasks": [{}]}, {"tasks": [{"data": 3}]},
                                     {"tasks": [{"data": {"image": 3}}]}])  # fmt: skip
def test_wrong_tasks_are_refused(content, http):
    answer = http.post("/predict", json=content)
    assert answer.status_code == 400
    assert "task" in answer.json()["detail"]
