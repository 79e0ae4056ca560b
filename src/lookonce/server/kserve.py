"""The Open Inference Protocol (KServe v2), for clients that speak it.

Input: one tensor of BYTES, each an encoded image (in JSON: base64), or one of UINT8 with RGB pixels, [h, w, 3] or
[N, h, w, 3]; numbers are in JSON or behind it (binary data extension). Output: a row for each detection of all images.
Source: github.com/kserve/open-inference-protocol, inference_rest.md; Triton's extension_binary_data.md.
"""

from __future__ import annotations

import asyncio
import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lookonce import __version__
from lookonce.server.answers import exact
from lookonce.server.api import as_json, service
from lookonce.server.limits import RequestError
from lookonce.server.models import Found, ServedModel, find
from lookonce.server.requests import Upload, decode_json, from_base64, json_texts, parse_options

JSON_LENGTH = "inference-header-content-length"
"""Header of a request with binary data: bytes of its JSON."""
OUTPUTS = {"image": ("INT64", [-1]), "boxes": ("FP32", [-1, 4]), "scores": ("FP32", [-1]), "labels": ("INT64", [-1]),
           "names": ("BYTES", [-1])}  # fmt: skip
"""Name -> (type, shape). image: index of the image in the request; boxes: xyxy, pixels; labels: index of the class."""
EXPECTED = "one tensor of BYTES (images in base64) or UINT8 ([h, w, 3] or [N, h, w, 3], RGB)"


async def server(request: Request) -> Response:
    """Answer GET /v2."""
    return as_json({"name": "lookonce", "version": __version__, "extensions": ["binary_tensor_data"]})


async def live(request: Request) -> Response:
    """Answer GET /v2/health/live."""
    return as_json({"live": True})


async def ready(request: Request) -> Response:
    """Answer GET /v2/health/ready."""
    is_ready = service(request).is_ready
    return as_json({"ready": is_ready}, 200 if is_ready else 503)


async def model_ready(request: Request) -> Response:
    """Answer GET /v2/models/NAME/ready."""
    served = _model(request)
    return as_json({"name": served.name, "ready": service(request).is_ready})


async def model(request: Request) -> Response:
    """Answer GET /v2/models/NAME."""
    served = _model(request)
    outputs = [{"name": name, "datatype": kind, "shape": shape} for name, (kind, shape) in OUTPUTS.items()]
    return as_json({
        "name": served.name, "versions": ["1"], "platform": "lookonce",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}], "outputs": outputs,
    })  # fmt: skip


async def infer(request: Request) -> Response:
    """Answer POST /v2/models/NAME/infer."""
    shared, served = service(request), _model(request)
    body = await shared.bodies.read(request)
    length = request.headers.get(JSON_LENGTH)
    asked, uploads = await asyncio.to_thread(_read, body, length)
    if len(uploads) > shared.limits.max_images:
        raise RequestError(413, f"{len(uploads)} images; expected at most {shared.limits.max_images} (--max-images)")
    options = parse_options({"model": [served.name], **_parameters(asked)})
    found = await shared.detect(request, uploads, options)
    wanted = [_dictionary(each, "outputs").get("name") for each in asked.get("outputs") or []]
    if unknown := [name for name in wanted if name not in OUTPUTS]:
        raise RequestError(400, f"outputs: {str(unknown[0])[:80]!r}; expected some of {', '.join(OUTPUTS)}")
    outputs = [tensor for tensor in _outputs(found) if not wanted or tensor["name"] in wanted]
    more = {"id": asked["id"]} if isinstance(asked.get("id"), str) else {}
    return as_json({"model_name": served.name, "model_version": "1", **more, "outputs": outputs})


def _model(request: Request) -> ServedModel:
    return find(service(request).models, request.path_params["name"])


def _dictionary(given: object, name: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise RequestError(400, f"{name}: {type(given).__name__}; expected an object")
    return given


def _parameters(asked: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the options among the parameters of a request; clients add parameters of their own."""
    given = _dictionary(asked.get("parameters") or {}, "parameters")
    return {name: json_texts(name, given[name]) for name in ("threshold", "classes", "iou", "timeout") if name in given}


def _read(body: bytes, json_length: str | None) -> tuple[dict[str, Any], list[Upload]]:
    """Return the JSON of a request and its images."""
    cut = len(body)
    if json_length is not None:
        if not json_length.isdecimal() or int(json_length) > len(body):
            raise RequestError(
                400, f"{JSON_LENGTH}: {json_length[:40]!r}; expected at most the {cut} bytes of the body"
            )
        cut = int(json_length)
    asked = decode_json(body[:cut])
    inputs = asked.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(400, f"inputs: expected {EXPECTED}")
    [tensor] = inputs
    size = _dictionary(tensor.get("parameters") or {}, "parameters").get("binary_data_size")
    binary = None if size is None else body[cut:]
    if binary is not None and size != len(binary):
        raise RequestError(400, f"binary_data_size: {size!r:.40}; expected {len(binary)}, the bytes behind the JSON")
    if tensor.get("datatype") == "BYTES":
        return asked, _encoded(tensor, binary)
    if tensor.get("datatype") == "UINT8":
        return asked, _pixels(tensor, binary)
    raise RequestError(400, f"inputs: datatype {str(tensor.get('datatype'))[:40]!r}; expected {EXPECTED}")


def _encoded(tensor: Mapping[str, Any], binary: bytes | None) -> list[Upload]:
    """Return the images of a tensor of BYTES."""
    if binary is None:
        data = _flat(tensor.get("data"))
        found = [from_base64(text, f"image {n}") for n, text in enumerate(data, 1)]
    else:
        found, at = [], 0
        while at < len(binary):
            length = struct.unpack_from("<I", binary, at)[0] if at + 4 <= len(binary) else len(binary)
            if at + 4 + length > len(binary):
                raise RequestError(400, "inputs: the binary data ends within an image")
            found.append(binary[at + 4 : at + 4 + length])
            at += 4 + length
    if not found or not all(found):
        raise RequestError(400, "inputs: an image of 0 bytes, or none; expected encoded images")
    return [Upload(content, "") for content in found]


def _pixels(tensor: Mapping[str, Any], binary: bytes | None) -> list[Upload]:
    """Return the images of a tensor of UINT8, as BMP: uncompressed, so nothing changes and little time is lost."""
    shape = tensor.get("shape")
    good = isinstance(shape, list) and len(shape) in (3, 4) and all(type(n) is int and 0 < n < 1 << 20 for n in shape)
    if not good or shape[-1] != 3:  # type: ignore[index]
        raise RequestError(400, f"inputs: shape {shape!r:.80}; expected {EXPECTED}")
    try:
        data = np.frombuffer(binary, np.uint8) if binary is not None else _bytes(_flat(tensor.get("data")))
        arrays = data.reshape([1, *shape][-4:])  # type: ignore[misc]
    except (ValueError, OverflowError, TypeError):
        raise RequestError(400, f"inputs: the data are not {shape} numbers from 0 to 255") from None
    uploads = []
    for pixels in arrays:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "BMP")
        uploads.append(Upload(file.getvalue(), ""))
    return uploads


def _bytes(data: Sequence[Any]) -> NDArray[np.uint8]:
    """Return whole numbers from 0 to 255. Raises ValueError or TypeError for others."""
    return np.frombuffer(bytes(data), np.uint8)


def _flat(data: object) -> list[Any]:
    """Return the elements of nested lists, row by row."""
    if not isinstance(data, list):
        raise RequestError(400, f"inputs: data: {type(data).__name__}; expected a list")
    while data and all(isinstance(each, list) for each in data):
        data = [one for each in data for one in each]
    return data


def _outputs(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return the tensors of OUTPUTS."""
    rows = [(n, entry) for n, one in enumerate(found) for entry in exact(one.detections)]
    columns: dict[str, list[Any]] = {
        "image": [n for n, _ in rows],
        "boxes": [side for _, entry in rows for side in entry["box"]],
        "scores": [entry["score"] for _, entry in rows],
        "labels": [entry["class_id"] for _, entry in rows],
        "names": [entry["label"] for _, entry in rows],
    }
    return [
        {"name": name, "datatype": kind, "shape": [len(rows), *shape[1:]], "data": columns[name]}
        for name, (kind, shape) in OUTPUTS.items()
    ]


ROUTES = (
    Route("/v2", server),
    Route("/v2/health/live", live),
    Route("/v2/health/ready", ready),
    Route("/v2/models/{name}", model),
    Route("/v2/models/{name}/ready", model_ready),
    Route("/v2/models/{name}/infer", infer, methods=["POST"]),
    Route("/v2/models/{name}/versions/{version}", model),
    Route("/v2/models/{name}/versions/{version}/ready", model_ready),
    Route("/v2/models/{name}/versions/{version}/infer", infer, methods=["POST"]),
)
