"""Tests of lookonce.server.api, over HTTP: what a detector answers here is the oracle."""

import base64
import io
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx
from PIL import Image

from lookonce import Detector
from served import serving


def expected(detector, file, **options):
    return detector(file, **options).to_json()


def detections(answer):
    assert answer.status_code == 200, answer.text
    return [image["detections"] for image in answer.json()["images"]]


def test_raw_bytes_a_form_and_json_give_what_the_detector_gives(http, detector, files):
    contents = [file.read_bytes() for file in files]
    for content, file in zip(contents, files, strict=True):
        answer = http.post("/v1/detect", content=content)
        assert detections(answer) == [expected(detector, file)]
        [image] = answer.json()["images"]
        assert (image["width"], image["height"]) == Image.open(file).size
    form = [("image", (file.name, content)) for file, content in zip(files, contents, strict=True)]
    answer = http.post("/v1/detect", files=form)
    assert detections(answer) == [expected(detector, file) for file in files]
    assert [image["file"] for image in answer.json()["images"]] == [file.name for file in files]
    coded = [base64.b64encode(content).decode() for content in contents]
    coded[0] = "data:image/png;base64," + coded[0]
    assert detections(http.post("/v1/detect", json={"images": coded})) == detections(answer)
    assert answer.json()["model_digest"] == detector.digest
    assert set(answer.json()["time_ms"]) == {"decode", "queue", "network", "total"}


def test_32_clients_get_the_same_answers_as_one(http, detector, files):
    known = {file: [expected(detector, file, threshold=0.01)] for file in files}
    with ThreadPoolExecutor(32) as pool:
        jobs = [(file, pool.submit(http.post, "/v1/detect?threshold=0.01", content=file.read_bytes()))
                for file in files * 12]  # fmt: skip
        for file, answer in jobs:
            assert detections(answer.result()) == known[file]


def test_options_are_in_the_query_the_form_or_the_json(http, detector, files):
    content, known = files[0].read_bytes(), expected(detector, files[0], threshold=0.02, labels=["red"])
    form = {"threshold": "0.02", "classes": "red"}
    answers = (
        http.post("/v1/detect?threshold=.02&classes=red", content=content),
        http.post("/v1/detect", files={"image": content}, data=form),
        http.post("/v1/detect", json={"image": base64.b64encode(content).decode(), "threshold": 0.02,
                                      "classes": ["red"]}),
    )  # fmt: skip
    for answer in answers:
        assert detections(answer) == [known]
    both = detections(http.post("/v1/detect?threshold=.02&classes=red,blue", content=content))
    assert both == [expected(detector, files[0], threshold=0.02)]
    assert detections(http.post("/v1/detect?threshold=.02&model=squares", content=content)) == both


def test_iou_is_that_of_non_maximum_suppression(http, run, files):
    for iou in (0.1, 0.9):
        known = Detector(run, "openvino", iou_threshold=iou)(files[0], threshold=0.01).to_json()
        assert detections(http.post(f"/v1/detect?threshold=.01&iou={iou}", content=files[0].read_bytes())) == [known]


def test_every_digit_can_be_asked_for(http, detector, files):
    found = detector(files[0])
    [entries] = detections(http.post("/v1/detect?rounded=false", content=files[0].read_bytes()))
    assert len(found)
    assert [entry["score"] for entry in entries] == [float(str(score)) for score in found.scores]


def test_an_answer_can_be_the_image_or_a_table(http, detector, files):
    content = files[0].read_bytes()
    drawn = http.post("/v1/detect?format=image", content=content)
    assert drawn.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(drawn.content)).size == Image.open(files[0]).size
    table = http.post("/v1/detect?format=csv", files={"image": ("a.png", content)}).text.splitlines()
    assert table[0] == "file,label,class_id,score,xmin,ymin,xmax,ymax"
    assert len(table) == 1 + len(detector(files[0]))
    assert table[1].startswith(f"a.png,{detector(files[0])[0].name},")


def test_models_are_described(http, detector):
    [model] = http.get("/v1/models").json()["models"]
    assert model == http.get("/v1/models/squares").json()
    assert model["labels"] == list(detector.labels)
    assert model["digest"] == detector.digest
    assert model["input_size"] == [96, 96]
    assert list(model["colours"]) == list(detector.labels)


def test_health_and_metrics(http, files):
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json() == {"status": "ready", "models": ["squares"]}

    def value(name):
        lines = http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before = value('lookonce_images_total{model="squares"}')
    http.post("/v1/detect", files=[("image", file.read_bytes()) for file in files[:3]])
    assert value('lookonce_images_total{model="squares"}') == before + 3
    assert value('lookonce_stage_seconds_count{stage="network"}') == value("lookonce_images_total")
    assert value('lookonce_batch_images_sum{model="squares"}') == value("lookonce_images_total")
    http.get("/v1/models/none")
    assert value('lookonce_rejected_total{error="unknown_model"}') >= 1
    assert value('lookonce_requests_total{route="/v1/models/{name}",status="404"}') >= 1
    assert value("lookonce_queue_images") == 0


def test_reload_needs_a_token_and_replaces_the_model_while_it_answers(run, files):
    opened = []

    def opening():
        opened.append(Detector(run, "openvino", threshold=0.01 if opened else 0.9))
        return opened[-1]

    with serving({"squares": opening}, token="a secret token".replace(" ", "-")) as running:
        headers = {"Authorization": "Bearer a-secret-token"}
        with httpx.Client(base_url=running.url, headers=headers) as http, ThreadPoolExecutor(4) as pool:
            content = files[0].read_bytes()
            jobs = [pool.submit(http.post, "/v1/detect", content=content) for _ in range(20)]
            assert http.post("/v1/models/squares/reload").status_code == 200
            jobs += [pool.submit(http.post, "/v1/detect", content=content) for _ in range(5)]
            found = [detections(job.result()) for job in jobs]
            assert len(opened) == 2
            known = [[detector(files[0]).to_json()] for detector in opened]
            assert all(each in known for each in found)
            assert found[-1] == known[1] != known[0]
            assert httpx.post(f"{running.url}/v1/models/squares/reload").status_code == 401
            assert http.post("/v1/models/none/reload").status_code == 404


def test_without_a_token_there_is_no_reload(http):
    answer = http.post("/v1/models/squares/reload")
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


def test_several_models_are_served_by_name(run, files):
    opening = {"low": lambda: Detector(run, threshold=0.01), "high": lambda: Detector(run, threshold=0.99)}
    with serving(opening) as running:
        found = {name: detections(httpx.post(f"{running.url}/v1/detect?model={name}", content=files[0].read_bytes()))
                 for name in opening}  # fmt: skip
        assert found["high"] == [[]] != found["low"]
        assert detections(httpx.post(f"{running.url}/v1/detect", content=files[0].read_bytes())) == found["low"]
        answer = httpx.post(f"{running.url}/v1/detect?model=none", content=b"x")
        assert answer.status_code == 404
        assert answer.json() == {"error": "unknown_model", "detail": "model 'none'; expected one of low, high"}
