"""The routes of a Label Studio ML backend, so that a detector labels images before people do.

Label Studio names an image by an address of its own server. With the address and a key of that server (the options
--label-studio and LABEL_STUDIO_API_KEY) the image is fetched from there and from nowhere else; images in data:
addresses need neither. Boxes are in percent of the image: corner, width and height.
Source: github.com/HumanSignal/label-studio-ml-backend, label_studio_ml/api.py; Label Studio's labeling configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.etree.ElementTree import ParseError

import httpx
from defusedxml import DefusedXmlException, ElementTree
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lookonce.server.api import as_json, service
from lookonce.server.limits import RequestError
from lookonce.server.models import Found, find
from lookonce.server.requests import Options, Upload, decode_json, from_base64

LONGEST_CONFIG = 1 << 20
"""Characters of a labeling configuration."""


@dataclass(frozen=True)
class LabelStudio:
    """The server that images are fetched from."""

    address: str
    key: str | None


@dataclass(frozen=True)
class Tags:
    """What a labeling configuration calls its boxes and its image."""

    from_name: str = "label"
    to_name: str = "image"
    field: str = "image"
    """Of a task's data: the image's address."""
    labels: tuple[str, ...] | None = None
    """Names of the classes there; None: not known, so all are sent."""


async def health(request: Request) -> Response:
    """Answer GET /health."""
    return as_json({"status": "UP", "model_class": "lookonce"})


async def setup(request: Request) -> Response:
    """Answer POST /setup: Label Studio connects, and asks for the version of the model."""
    shared = service(request)
    asked = decode_json(await shared.bodies.read(request) or b"{}")
    if isinstance(schema := asked.get("schema"), str):
        read_config(schema)
    return as_json({"model_version": _version(find(shared.models, None).engine.digest)})


async def predict(request: Request) -> Response:
    """Answer POST /predict: detect on the image of each task."""
    shared = service(request)
    asked = decode_json(await shared.bodies.read(request))
    tasks = asked.get("tasks")
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise RequestError(400, 'tasks: expected a list of objects, as in {"tasks": [{"data": {"image": ...}}]}')
    config = asked.get("label_config")
    tags = read_config(config) if isinstance(config, str) and config.strip() else Tags()
    server: LabelStudio | None = request.app.state.label_studio
    results = []
    for task in tasks:  # one by one: Label Studio asks for a page of tasks at most
        content = await _image(task, tags, server, shared.limits.max_bytes)
        found = await shared.detect(request, [Upload(content, "")], Options())
        results.append(to_prediction(found[0], tags))
    version = _version(find(shared.models, None).engine.digest)
    return as_json({"results": results, "model_version": version})


def read_config(text: str) -> Tags:
    """Return the tags of a labeling configuration. Raises RequestError 400 if it has no boxes."""
    try:
        root = ElementTree.fromstring(text[:LONGEST_CONFIG])
    except (ParseError, DefusedXmlException, ValueError):
        raise RequestError(400, "label_config: not XML; expected the labeling configuration of a project") from None
    boxes = next(iter(root.iter("RectangleLabels")), None)
    if boxes is None:
        raise RequestError(400, "label_config: no <RectangleLabels>; expected a project in which boxes are drawn")
    to_name = boxes.get("toName", "image")
    image = next((tag for tag in root.iter("Image") if tag.get("name") == to_name), None)
    field = (image.get("value") or "" if image is not None else "").lstrip("$") or "image"
    labels = tuple(value for tag in boxes.iter("Label") if (value := tag.get("value")))
    return Tags(boxes.get("name", "label"), to_name, field, labels or None)


def to_prediction(found: Found, tags: Tags) -> dict[str, Any]:
    """Return the detections on one image as a prediction of Label Studio.

    A class that its project does not have, in any case of letters, is left out: Label Studio could not show it.
    """
    width, height = found.size
    own = None if tags.labels is None else {name.casefold(): name for name in tags.labels}
    result, scores = [], []
    for number, one in enumerate(found.detections):
        label = one.name if own is None else own.get(one.name.casefold())
        if label is None:
            continue
        x1, y1, x2, y2 = one.box
        value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "width": 100 * (x2 - x1) / width,
                 "height": 100 * (y2 - y1) / height, "rotation": 0, "rectanglelabels": [label]}  # fmt: skip
        result.append({
            "id": f"lookonce-{number + 1}", "from_name": tags.from_name, "to_name": tags.to_name,
            "type": "rectanglelabels", "original_width": width, "original_height": height, "image_rotation": 0,
            "value": value, "score": one.score,
        })  # fmt: skip
        scores.append(one.score)
    score = sum(scores) / len(scores) if scores else 0.0
    return {"result": result, "score": score, "model_version": _version(found.digest)}


def _version(digest: str | None) -> str:
    return f"lookonce-{(digest or 'memory').removeprefix('sha256:')[:12]}"


async def _image(task: Mapping[str, Any], tags: Tags, server: LabelStudio | None, most: int) -> bytes:
    """Return the image of a task. Raises RequestError for an address that is not Label Studio's."""
    data = task.get("data")
    address = data.get(tags.field) if isinstance(data, dict) else None
    if not isinstance(address, str) or not address:
        raise RequestError(400, f"task {str(task.get('id'))[:40]}: no text under data.{tags.field[:40]}; expected the "
                           "address of its image")  # fmt: skip
    if address.startswith("data:"):
        return from_base64(address, "the image")
    if server is None:
        raise RequestError(400, f"{address[:200]}: not fetched; start the server with --label-studio ADDRESS, and only "
                           "images of that address are fetched")  # fmt: skip
    whole = urljoin(server.address.rstrip("/") + "/", address)
    if _origin(whole) != _origin(server.address):
        raise RequestError(400, f"{address[:200]}: not fetched; expected an image of {server.address}")
    return await _fetch(whole, server.key, most)


async def _fetch(address: str, key: str | None, most: int) -> bytes:
    """Return the file at an address, without following it elsewhere. Raises RequestError 502 or 413."""
    content = bytearray()
    headers = {} if key is None else {"Authorization": f"Token {key}"}
    try:
        async with (
            httpx.AsyncClient(headers=headers, timeout=10, trust_env=False) as client,
            client.stream("GET", address) as response,
        ):
            if response.status_code != 200:
                raise RequestError(502, f"{address[:200]}: Label Studio answers {response.status_code}; check its "
                                   "address and LABEL_STUDIO_API_KEY")  # fmt: skip
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > most:
                    raise RequestError(413, f"{address[:200]}: more than {most >> 20} MB (--max-mb)")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise RequestError(502, f"{address[:200]}: Label Studio does not answer ({error})") from None
    return bytes(content)


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme.lower(), parts.netloc.lower()


ROUTES = (
    Route("/health", health),
    Route("/setup", setup, methods=["POST"]),
    Route("/predict", predict, methods=["POST"]),
)
