"""The description of the routes as OpenAPI 3.1, and the same as a page without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lookonce import __version__

Object = dict[str, Any]
NUMBER = {"type": "number", "minimum": 0, "maximum": 1}
TEXT = {"type": "string"}
ERRORS = {
    400: "A wrong option, wrong JSON, or no image.", 401: "The token is missing or wrong.",
    404: "The model is not served.", 413: "Too many bytes, pixels or images.", 415: "A wrong content type.",
    422: "A file that is not an image, or is incomplete.", 503: "The queue is full: try again after Retry-After.",
    504: "The deadline has passed.",
}  # fmt: skip
OPTIONS = (
    ("model", TEXT, "Name of a model; without it the first."),
    ("threshold", NUMBER, "Lowest score; without it the model's own threshold of each class."),
    ("classes", {"type": "array", "items": TEXT}, "Names of the classes wanted: classes=cat&classes=dog, or cat,dog."),
    ("iou", NUMBER, "Non-maximum suppression: of two boxes of a class with a higher IoU, the better is kept."),
    ("format", {"type": "string", "enum": ["json", "image", "csv"]}, "image: the image with its boxes, as JPEG."),
    ("rounded", {"type": "boolean"}, "false: scores and boxes with every digit of their float32."),
    ("timeout", {"type": "number", "exclusiveMinimum": 0}, "Seconds for the answer, at most those of the server."),
)
"""(name, schema, meaning)"""


def openapi() -> Object:
    """Return the description."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lookonce", "version": __version__,
            "description": "Finds objects in images. Nothing is stored and nothing is sent to another machine.",
        },
        "paths": {
            "/v1/detect": {"post": _detect()},
            "/v1/models": {"get": _get("List the models", "Names, classes, thresholds, input size and digest.")},
            "/v1/models/{name}": {"get": _get("Describe a model", "As in the list of models.", ["name"])},
            "/v1/models/{name}/reload": {"post": _get(
                "Replace a model", "Its files are read again; requests are answered all the time. Needs a token. 409: "
                "they cannot be read, and the old model stays.", ["name"])},
            "/healthz": {"get": _get("Liveness", "200 while the process works.")},
            "/readyz": {"get": _get("Readiness", "200 while requests are taken; 503 while the server ends.")},
            "/metrics": {"get": _get("Counters for Prometheus", "Requests, images, time of each stage, queue, batches, "
                                     "refusals, memory.")},
            "/v2/models/{name}/infer": {"post": _get(
                "Open Inference Protocol (KServe v2)", "One input: BYTES, each an encoded image (in JSON: base64), or "
                "UINT8, [h, w, 3] or [N, h, w, 3], RGB; also as binary data. Outputs, a row a detection: image INT64, "
                "boxes FP32 [-1, 4], scores FP32, labels INT64, names BYTES. Parameters: threshold, classes, iou. "
                "Also: /v2, /v2/health/live, /v2/health/ready, /v2/models/{name}, /v2/models/{name}/ready.", ["name"])},
            "/predict": {"post": _get("Label Studio ML backend", "Detects on the image of each task; boxes in percent. "
                                      "Also: /health and /setup.")},
        },
        "components": {
            "schemas": {"Answer": _answer(), "Error": _error()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }  # fmt: skip


def _detect() -> Object:
    base64_body = {"type": "object", "properties": {
        "image": {**TEXT, "description": "An image in base64, or a data: address."},
        "images": {"type": "array", "items": TEXT, "description": "Several of them."},
        **{name: {**schema, "description": meaning} for name, schema, meaning in OPTIONS},
    }}  # fmt: skip
    form = {"type": "object", "properties": {"image": {"type": "array", "items": {"type": "string",
                                                                                  "format": "binary"}}}}  # fmt: skip
    return {
        "summary": "Detect objects",
        "description": "The body is one image, a form with several, or JSON. Options are in the query, in fields of "
        "the form or in the JSON.",
        "parameters": [{"name": name, "in": "query", "schema": schema, "description": meaning}
                       for name, schema, meaning in OPTIONS],
        "requestBody": {"required": True, "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": base64_body},
        }},
        "responses": {
            "200": {"description": "The detections, best first.", "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}},
                "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
                "text/csv": {"schema": TEXT},
            }},
            **_errors(ERRORS),
        },
    }  # fmt: skip


def _get(summary: str, description: str, parameters: Sequence[str] = ()) -> Object:
    """Return a route with parameters in its path."""
    given = [{"name": name, "in": "path", "required": True, "schema": TEXT} for name in parameters]
    responses = {
        "200": {"description": "Done."},
        **_errors({401: ERRORS[401], **({404: ERRORS[404]} if given else {})}),
    }
    return {"summary": summary, "description": description, **({"parameters": given} if given else {}),
            "responses": responses}  # fmt: skip


def _errors(wanted: Mapping[int, str]) -> Object:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": text, "content": content} for status, text in wanted.items()}


def _answer() -> Object:
    box = {"type": "array", "items": {"type": "number"}, "description": "xmin, ymin, xmax, ymax: pixels of the image."}
    detection = {"type": "object", "properties": {"label": TEXT, "class_id": {"type": "integer"}, "score": NUMBER,
                                                  "box": box}}  # fmt: skip
    image = {"type": "object", "properties": {
        "file": TEXT, "width": {"type": "integer"}, "height": {"type": "integer"},
        "detections": {"type": "array", "items": detection},
    }}  # fmt: skip
    stages = {name: {"type": "number"} for name in ("decode", "queue", "network", "total")}
    return {"type": "object", "properties": {
        "model": TEXT, "model_digest": TEXT, "images": {"type": "array", "items": image},
        "time_ms": {"type": "object", "properties": stages},
    }}  # fmt: skip


def _error() -> Object:
    return {"type": "object", "properties": {
        "error": {**TEXT, "description": "A word for programs."},
        "detail": {**TEXT, "description": "A sentence for people."},
    }}  # fmt: skip


EXAMPLES = {
    "curl": "curl --data-binary @photo.jpg 'http://127.0.0.1:8000/v1/detect?threshold=0.5'\n"
    "curl -F image=@a.jpg -F image=@b.jpg -F classes=cat http://127.0.0.1:8000/v1/detect\n"
    "curl --data-binary @photo.jpg 'http://127.0.0.1:8000/v1/detect?format=image' -o found.jpg\n"
    "curl -H 'Authorization: Bearer TOKEN' http://127.0.0.1:8000/v1/models",
    "Python": "import lookonce\n\nclient = lookonce.Client(\"http://127.0.0.1:8000\")\n"
    "found = client(\"photo.jpg\", threshold=0.5)      # Detections, as a Detector gives them\n"
    "print(found.names, found.scores, found.boxes)",
    "Command line": "lookonce detect http://127.0.0.1:8000 photos/",
    "Answer": '{"model": "cells-1", "model_digest": "sha256:...", "images": [\n'
    '  {"file": "photo.jpg", "width": 640, "height": 480, "detections": [\n'
    '    {"label": "cell", "class_id": 0, "score": 0.912345, "box": [10.25, 20.5, 110.0, 220.75]}]}],\n'
    ' "time_ms": {"decode": 3.1, "queue": 0.2, "network": 14.8, "total": 19.0}}',
    "Error": '{"error": "not_an_image", "detail": "the image: a text file, not an image"}',
}  # fmt: skip


def docs_page(description: Mapping[str, Any]) -> str:
    """Return the description as an HTML page."""
    parts = [f"<p class=lead>{escape(description['info']['description'])} The same as a file for programs: "
             '<a href="/openapi.json">openapi.json</a>. <a href="/">Try it in the browser</a>.</p>']  # fmt: skip
    parts.append("<h2>Examples</h2>")
    parts += [f"<h3>{escape(title)}</h3><pre>{escape(text)}</pre>" for title, text in EXAMPLES.items()]
    parts.append("<h2>Addresses</h2>")
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            parts.append(f"<section><h3><b>{method.upper()}</b> <code>{escape(path)}</code></h3>"
                         f"<p><strong>{escape(route['summary'])}.</strong> {escape(route['description'])}</p>"
                         f"{_table(route)}</section>")  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        'initial-scale=1"><title>lookonce: the addresses of this server</title><link rel="icon" href="/icon.svg">'
        '<link rel="stylesheet" href="/docs.css"></head><body><main><h1>lookonce '
        f"<small>{escape(description['info']['version'])}</small></h1>{''.join(parts)}</main></body></html>"
    )


def _table(route: Mapping[str, Any]) -> str:
    """Return the options and the statuses of a route."""
    asked = [each for each in route.get("parameters", ()) if each["in"] == "query"]
    rows = [(f"<code>{each['name']}</code>", each["description"]) for each in asked]
    rows += [(f"<code>{status}</code>", each["description"]) for status, each in route["responses"].items()]
    if not asked:
        return ""
    cells = "".join(f"<tr><td>{name}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table><tbody>{cells}</tbody></table>"
