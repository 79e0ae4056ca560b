"""What a request to detect says: its images and its options.

The body is the bytes of one image, multipart/form-data with several, or JSON with images in base64. Options are in the
query, in fields of the form or in the JSON, under the same names; the body comes before the query.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from lookonce.choices import closest
from lookonce.errors import printable
from lookonce.server.limits import Limits, RequestError

AnswerFormat = Literal["json", "image", "csv"]
RAW_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Content types of a body that is one image, besides image/...: what curl --data-binary says, among others."""
EXPECTED_TYPE = "image/... or application/octet-stream, multipart/form-data, or application/json"
LONGEST_FIELD = 64 << 10
"""Bytes of a field of a form that is not a file."""
MOST_FIELDS = 100
"""Fields of a form that are not files."""
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Upload:
    """One image of a request."""

    content: bytes
    file: str
    """Its name, as the client gives it; never a path here."""


@dataclass(frozen=True)
class Options:
    """What a request asks for."""

    model: str | None = None
    """Name of a model; None: the first."""
    threshold: float | None = None
    """Lowest score; None: the model's own threshold of each class."""
    classes: tuple[str, ...] | None = None
    """Names of the classes wanted; None: all."""
    iou: float | None = None
    """Of non-maximum suppression; None: the server's."""
    format: AnswerFormat = "json"
    rounded: bool = True
    """Scores to 6 digits and boxes to 1/100 pixel, as in detections.json; else every digit."""
    timeout: float | None = None
    """Seconds for the answer; None: the server's."""


NAMES = tuple(Options.__dataclass_fields__)


class Bodies:
    """Reads bodies, within the bytes that all of them may take together."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.taken = limits, 0

    async def read(self, request: Request) -> bytes:
        """Return the body of a request. Raises RequestError if it is too large or arrives too slowly."""
        most = self.limits.max_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise self._too_large()
        content, counted = bytearray(), 0
        try:
            async with asyncio.timeout(self.limits.timeout):
                async for chunk in request.stream():
                    if len(content) + len(chunk) > most:
                        raise self._too_large()
                    if self.taken + len(chunk) > self.limits.bodies:
                        raise RequestError(503, "too many large requests at once; try again later", retry_after=1)
                    content += chunk
                    counted += len(chunk)
                    self.taken += len(chunk)
            return bytes(content)
        except TimeoutError:
            raise RequestError(408, f"the body did not arrive within {self.limits.timeout:g} s") from None
        except ClientDisconnect:
            raise RequestError(400, "the connection ended before the body was complete") from None
        finally:
            self.taken -= counted

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the request is too large; expected at most {self.limits.max_mb} MB (--max-mb)")


async def read_request(request: Request, bodies: Bodies) -> tuple[list[Upload], Options]:
    """Return the images and options of a request. Raises RequestError with a 4xx status if it has none or wrong ones.

    Raises RequestError 503 where many bodies are in memory.
    """
    fields = _query(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_raw = kind in RAW_TYPES or kind.startswith("image/")
    if not (is_raw or kind in ("multipart/form-data", "application/json")):
        raise RequestError(415, f"content type {kind[:80]!r}; expected {EXPECTED_TYPE}")
    check_names(fields)
    body = await bodies.read(request)
    if kind == "multipart/form-data":
        whole = request.headers["content-type"]
        uploads, given = await asyncio.to_thread(_multipart, whole, body, bodies.limits)
        fields |= given
    elif kind == "application/json":
        uploads, given = await asyncio.to_thread(_json, body)  # base64 of many megabytes takes its time
        fields |= given
    else:
        uploads = [Upload(body, "")] if body else []
    if not uploads:
        raise RequestError(400, f"no image in the request; expected its bytes as {EXPECTED_TYPE}")
    if len(uploads) > bodies.limits.max_images:
        raise RequestError(413, f"{len(uploads)} images; expected at most {bodies.limits.max_images} (--max-images)")
    for number, upload in enumerate(uploads):
        if not upload.content:
            raise RequestError(400, f"{place(uploads, number)}: 0 bytes; expected the bytes of an image")
    return uploads, parse_options(fields)


def place(uploads: Sequence[Upload], number: int) -> str:
    """Return what a message calls an image of a request, by its index."""
    name = f" ({uploads[number].file[:80]})" if uploads[number].file else ""
    return f"image {number + 1} of {len(uploads)}{name}" if len(uploads) > 1 else f"the image{name}"


def parse_options(fields: Mapping[str, Sequence[str]]) -> Options:
    """Return options from their texts. Raises RequestError 400 for an unknown name or a wrong value."""
    check_names(fields)
    found: dict[str, Any] = {}
    for name, texts in fields.items():
        if name == "classes":
            found[name] = tuple(texts)
            continue
        if len(texts) != 1:
            raise RequestError(400, f"{name}: {len(texts)} values; expected one")
        found[name] = _value(name, texts[0])
    return Options(**found)


def check_names(names: Mapping[str, object]) -> None:
    """Raise RequestError 400 for a name that is no option."""
    for name in names:
        if name not in NAMES:
            near = closest(name, NAMES)
            more = f"; did you mean {near!r}?" if near else ""
            raise RequestError(400, f"{name[:80]!r}: no option; expected some of {', '.join(NAMES)}{more}")


def _value(name: str, text: str) -> object:
    """Return the value of an option."""
    if name == "format" and text not in get_args(AnswerFormat):
        raise RequestError(400, f"format: {text[:80]!r}; expected one of {', '.join(get_args(AnswerFormat))}")
    if name == "rounded":
        if text.lower() not in TRUTH:
            raise RequestError(400, f"rounded: {text[:80]!r}; expected true or false")
        return TRUTH[text.lower()]
    if name not in ("threshold", "iou", "timeout"):
        return text
    expected = "a number of seconds above 0" if name == "timeout" else "a number from 0 to 1"
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (0 < number <= 3600 if name == "timeout" else 0 <= number <= 1):  # nan too
        raise RequestError(400, f"{name}: {text[:80]!r}; expected {expected}")
    return number


def _query(request: Request) -> dict[str, list[str]]:
    """Return the options of the query."""
    found: dict[str, list[str]] = {}
    for name, text in request.query_params.multi_items():
        found.setdefault(name, []).append(text)
    return found


class _Parts:
    """Collects the parts of a form. Nothing is written to the disk."""

    def __init__(self, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self.fields: dict[str, list[str]] = {}
        self._most, self._count = limits.max_images, 0
        self.begin()

    def begin(self) -> None:
        """Start a part."""
        self._header, self._value, self._about, self._data = bytearray(), bytearray(), b"", bytearray()

    def header_end(self) -> None:
        """End a header of a part."""
        if self._header.lower() == b"content-disposition":
            self._about = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def end(self) -> None:
        """End a part."""
        _, options = parse_options_header(self._about)
        self._count += 1
        if self._count > self._most + MOST_FIELDS:
            raise RequestError(413, f"a form of more than {self._most + MOST_FIELDS} parts")
        if b"filename" in options:
            name = options[b"filename"].decode("utf-8", "replace")
            self.uploads.append(Upload(bytes(self._data), printable(name)))
        else:
            name, text = (
                each.decode("utf-8", "replace") for each in (options.get(b"name", b""), self._data[:LONGEST_FIELD])
            )
            self.fields.setdefault(name, []).append(text)

    def callbacks(self) -> Any:
        """Return what the parser calls with each piece."""
        return {
            "on_part_begin": self.begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self.header_end,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self.end,
        }


def _multipart(kind: str, body: bytes, limits: Limits) -> tuple[list[Upload], dict[str, list[str]]]:
    """Return the files and fields of a form. kind: the content type, which names the boundary."""
    boundary = parse_options_header(kind.encode("latin-1", "replace"))[1].get(b"boundary")
    if not boundary:
        raise RequestError(400, "multipart/form-data: no boundary in the content type")
    parts = _Parts(limits)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, f"multipart/form-data: cannot be read ({str(error)[:200]})") from None
    return parts.uploads, parts.fields


def _json(body: bytes) -> tuple[list[Upload], dict[str, list[str]]]:
    """Return the images and options of {"image": BASE64} or {"images": [BASE64, ...]} with options."""
    found = decode_json(body)
    given = [name for name in ("image", "images") if name in found]
    if len(given) != 1:
        raise RequestError(400, 'JSON: expected "image", an image in base64, or "images", a list of them')
    images = found.pop(given[0])
    images = [images] if given == ["image"] else images
    if not isinstance(images, list):
        raise RequestError(400, f"images: {type(images).__name__}; expected a list of images in base64")
    uploads = [Upload(from_base64(image, f"image {n}"), "") for n, image in enumerate(images, 1)]
    return uploads, {name: json_texts(name, value) for name, value in found.items() if value is not None}


def decode_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body is. Raises RequestError 400 for anything else."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RequestError(400, f"JSON: cannot be read ({str(error)[:200]})") from None
    if not isinstance(found, dict):
        raise RequestError(400, f'JSON: {type(found).__name__}; expected an object, as in {{"image": ...}}')
    return found


def json_texts(name: str, value: object) -> list[str]:
    """Return the value of an option in JSON as the query would have it."""
    values = value if isinstance(value, list) else [value]
    for each in values:
        if not isinstance(each, str | int | float):
            raise RequestError(400, f"{name[:80]}: {type(each).__name__}; expected text or a number")
    return [str(each).lower() if isinstance(each, bool) else str(each) for each in values]


def from_base64(text: object, name: str) -> bytes:
    """Return the bytes of base64, or of a data: address that has it. Raises RequestError 400 for anything else."""
    if not isinstance(text, str):
        raise RequestError(400, f"{name}: {type(text).__name__}; expected text in base64")
    comma = text.find(",", 0, 200)
    coded = text[comma + 1 :] if comma >= 0 and text.startswith("data:") else text
    try:
        return base64.b64decode("".join(coded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(
            400, f"{name}: not base64 ({text[:30]!r}); expected the bytes of an image in base64"
        ) from None
