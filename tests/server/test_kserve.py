"""Tests of lookonce.server.kserve. Requests are those of the protocol's text and of Triton's binary extension."""

import base64
import json
import struct

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
from PIL import Image

INFER = "/v2/models/squares/infer"


def outputs(answer):
    assert answer.status_code == 200, answer.text
    return {tensor["name"]: tensor for tensor in answer.json()["outputs"]}


def coded(*files):
    data = [base64.b64encode(file.read_bytes()).decode() for file in files]
    return {"name": "image", "shape": [len(files)], "datatype": "BYTES", "data": data}


def same(found, known):
    """Tensors hold what a detector finds on each image, bit for bit."""
    boxes = np.array(found["boxes"]["data"], np.float32).reshape(found["boxes"]["shape"])
    np.testing.assert_array_equal(boxes, np.concatenate([each.boxes for each in known]))
    scores = np.array(found["scores"]["data"], np.float32)
    np.testing.assert_array_equal(scores, np.concatenate([each.scores for each in known]))
    assert found["names"]["data"] == [name for each in known for name in each.names]
    assert found["image"]["data"] == [n for n, each in enumerate(known) for _ in each.scores]


def test_images_in_base64(http, detector, files):
    answer = http.post(INFER, json={"id": "7", "inputs": [coded(*files)], "parameters": {"threshold": 0.02}})
    same(outputs(answer), detector(files, threshold=0.02))
    assert answer.json()["id"] == "7"
    one = http.post("/v2/models/squares/versions/1/infer", json={"inputs": [coded(files[0])]})
    same(outputs(one), [detector(files[0])])


def test_images_as_binary_data(http, detector, files):
    blob = b"".join(struct.pack("<I", len(content)) + content for content in (file.read_bytes() for file in files))
    tensor = {
        "name": "image",
        "shape": [len(files)],
        "datatype": "BYTES",
        "parameters": {"binary_data_size": len(blob)},
    }
    header = json.dumps({"inputs": [tensor], "outputs": [{"name": "boxes", "parameters": {"binary_data": True}}]})
    answer = http.post(INFER, content=header.encode() + blob,
                       headers={"Inference-Header-Content-Length": str(len(header))})  # fmt: skip
    found = outputs(answer)
    assert list(found) == ["boxes"]
    np.testing.assert_array_equal(np.array(found["boxes"]["data"], np.float32).reshape(-1, 4),
                                  np.concatenate([detector(file).boxes for file in files]))  # fmt: skip


def test_pixels(http, detector, files):
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    tensor = {"name": "image", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    same(outputs(http.post(INFER, json={"inputs": [tensor]})), detector(files))
    one = {"name": "image", "shape": list(pixels[0].shape), "datatype": "UINT8", "data": pixels[0].tolist()}
    same(outputs(http.post(INFER, json={"inputs": [one]})), [detector(files[0])])
    tensor = {**tensor, "parameters": {"binary_data_size": pixels.size}}
    del tensor["data"]
    header = json.dumps({"inputs": [tensor]})
    answer = http.post(INFER, content=header.encode() + pixels.tobytes(),
                       headers={"Inference-Header-Content-Length": str(len(header))})  # fmt: skip
    same(outputs(answer), detector(files))


def test_the_server_and_its_model_are_described(http):
    assert http.get("/v2").json()["name"] == "lookonce"
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2/models/squares/ready").json() == {"name": "squares", "ready": True}
    model = http.get("/v2/models/squares").json()
    assert [tensor["name"] for tensor in model["outputs"]] == ["image", "boxes", "scores", "labels", "names"]
    assert http.get("/v2/models/none").status_code == 404


WRONG = (
    {}, {"inputs": 3}, {"inputs": []}, {"inputs": [3]}, {"inputs": [{"datatype": "FP32", "shape": [1], "data": [1]}]},
    {"inputs": [{"datatype": "BYTES", "shape": [1], "data": "x"}]}, {"inputs": [{"datatype": "BYTES", "data": []}]},
    {"inputs": [{"datatype": "BYTES", "shape": [1], "data": [[[1]]]}]},
    {"inputs": [{"datatype": "UINT8", "shape": [2, 2, 3], "data": [1, 2]}]},
    {"inputs": [{"datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, 300]}]},
    {"inputs": [{"datatype": "UINT8", "shape": [1, 1, 3], "data": [1, 2, "a"]}]},
    {"inputs": [{"datatype": "UINT8", "shape": [-1, 2, 3], "data": []}]},
    {"inputs": [{"datatype": "UINT8", "shape": "x", "data": []}]},
    {"inputs": [{"datatype": "UINT8", "shape": [10**5, 10**5, 3], "data": []}]},
    {"inputs": [{"datatype": "BYTES", "parameters": {"binary_data_size": 9}}]},
    {"inputs": [{"datatype": "BYTES", "parameters": 3}]}, {"inputs": [{"datatype": "BYTES", "data": ["AAAA"]}],
                                                           "parameters": {"threshold": 7}},
    {"inputs": [{"datatype": "BYTES", "data": ["AAAA"]}], "parameters": [1]},
    {"inputs": [{"datatype": "BYTES", "data": ["AAAA"]}]},
)  # fmt: skip


@pytest.mark.parametrize("content", WRONG)
def test_wrong_requests_are_answered_in_plain_words(content, http):
    answer = http.post(INFER, json=content)
    assert 400 <= answer.status_code < 500
    assert set(answer.json()) == {"error", "detail"}


@pytest.mark.parametrize("length", ["x", "-1", "999999", "3"])
def test_a_wrong_length_of_the_json_is_refused(length, http, files):
    content = json.dumps({"inputs": [coded(files[0])]}).encode()
    answer = http.post(INFER, content=content, headers={"Inference-Header-Content-Length": length})
    assert answer.status_code == 400


def test_an_unknown_output_is_refused(http, files):
    answer = http.post(INFER, json={"inputs": [coded(files[0])], "outputs": [{"name": "masks"}]})
    assert answer.json()["detail"] == "outputs: 'masks'; expected some of image, boxes, scores, labels, names"
