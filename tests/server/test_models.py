"""Tests of lookonce.server.models: full queues, deadlines, and models that cannot be replaced."""

import io
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx
import numpy as np
from PIL import Image

from lookonce import Detector, UserError
from lookonce.errors import ConfigError
from lookonce.server.limits import Limits
from lookonce.server.models import ServedModel
from served import Held, serving, until


@pytest.fixture
def held(detector):
    return Held(detector.backend)


def test_past_a_full_queue_requests_are_refused_at_once_and_none_is_lost(held, detector, files):
    content, known = files[0].read_bytes(), detector(files[0]).to_json()
    with serving({"m": lambda: Detector(held)}, batch=2, queue=4) as running, ThreadPoolExecutor(40) as pool:
        limits = httpx.Limits(max_connections=50)
        with httpx.Client(base_url=running.url, limits=limits, timeout=30) as http:
            held.gate.clear()
            batcher = running.shared.models["m"].engine.batcher
            jobs = [pool.submit(http.post, "/v1/detect", content=content)]
            until(lambda: batcher.in_network == 1)
            jobs += [pool.submit(http.post, "/v1/detect", content=content) for _ in range(4)]
            until(lambda: batcher.waiting == 4)
            for _ in range(20):
                refused = http.post("/v1/detect", content=content)
                assert refused.status_code == 503
                assert refused.json()["error"] == "busy"
                assert int(refused.headers["retry-after"]) >= 1
            assert http.get("/healthz").status_code == 200
            held.gate.set()
            assert [job.result().json()["images"][0]["detections"] for job in jobs] == [known] * 5


def test_past_its_deadline_a_request_gets_504(held, files):
    with serving({"m": lambda: Detector(held)}) as running:
        held.gate.clear()
        answer = httpx.post(f"{running.url}/v1/detect?timeout=0.1", content=files[0].read_bytes())
        held.gate.set()
        assert (answer.status_code, answer.json()["error"]) == (504, "timeout")
        assert httpx.post(f"{running.url}/v1/detect", content=files[0].read_bytes()).status_code == 200


def test_a_client_that_leaves_frees_its_place(held, files):
    content = files[0].read_bytes()
    with serving({"m": lambda: Detector(held)}, batch=1) as running, ThreadPoolExecutor(4) as pool:
        batcher = running.shared.models["m"].engine.batcher
        held.gate.clear()
        job = pool.submit(httpx.post, f"{running.url}/v1/detect", content=content)
        until(lambda: batcher.in_network == 1)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{running.url}/v1/detect", content=content, timeout=0.1)
        until(lambda: batcher.waiting == 0)
        held.gate.set()
        assert job.result().status_code == 200


def test_a_signal_answers_what_was_accepted_and_then_ends(held, detector, files):
    with serving({"m": lambda: Detector(held)}, batch=1) as running, ThreadPoolExecutor(8) as pool:
        held.gate.clear()
        jobs = [pool.submit(httpx.post, f"{running.url}/v1/detect", content=files[0].read_bytes()) for _ in range(6)]
        batcher = running.shared.models["m"].engine.batcher
        until(lambda: batcher.waiting == 5)
        running.signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{running.url}/healthz")
        held.gate.set()
        assert [job.result().json()["images"][0]["detections"] for job in jobs] == [detector(files[0]).to_json()] * 6
        running.join()


def test_a_model_that_cannot_be_opened_again_stays(detector, files):
    opened = []

    def opening():
        if opened:
            raise UserError("m.xml: damaged")
        opened.append(1)
        return Detector(detector.backend)

    with serving({"m": opening}, token="12345678") as running:
        headers = {"Authorization": "Bearer 12345678"}
        answer = httpx.post(f"{running.url}/v1/models/m/reload", headers=headers)
        assert answer.status_code == 409
        assert answer.json()["detail"] == "m: not replaced, the old model stays: m.xml: damaged"
        content = files[0].read_bytes()
        assert httpx.post(f"{running.url}/v1/detect", content=content, headers=headers).status_code == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_hang_up_loads_the_models_again(detector):
    opened = []

    def opening():
        opened.append(Detector(detector.backend))
        return opened[-1]

    with serving({"m": opening}) as running:
        first = running.shared.models["m"].engine
        running.signal(signal.SIGHUP)
        until(lambda: running.shared.models["m"].engine is not first)
        assert running.shared.models["m"].engine.detector is opened[1]


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "ä", "x" * 101])
def test_a_name_can_stand_in_an_address(name):
    with pytest.raises(ConfigError, match="expected letters, digits"):
        ServedModel(name, lambda: None, Limits())


def png(size, mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).convert(mode).save(file, "PNG")
    return file.getvalue()


def test_images_over_the_limit_of_pixels_are_refused_before_they_are_decoded(detector):
    with serving({"m": lambda: Detector(detector.backend)}, max_pixels=100 * 100) as running:
        assert httpx.post(f"{running.url}/v1/detect", content=png((100, 100))).status_code == 200
        answer = httpx.post(f"{running.url}/v1/detect", content=png((101, 100)))
        assert answer.status_code == 413
        assert answer.json()["detail"] == "the image: 101 x 100 pixels; expected at most 10,000 (--max-pixels)"
        bomb = bytearray(png((100, 100)))
        bomb[16:24] = (30_000).to_bytes(4, "big") + (30_000).to_bytes(4, "big")  # width and height in the header
        assert httpx.post(f"{running.url}/v1/detect", content=bytes(bomb)).status_code in (413, 422)
