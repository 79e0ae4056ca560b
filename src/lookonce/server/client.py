"""Client: a served detector, called like one that is here. No torch, and nothing of the server."""

from __future__ import annotations

import io
import math
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast, overload

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookonce.data.download import OFFLINE, is_offline
from lookonce.data.images import BATCH, ImageSource, Opened, load_rgb, open_ahead
from lookonce.errors import ImageError, UserError, printable
from lookonce.inference.detector import is_one
from lookonce.model.detections import Detections
from lookonce.model.postprocess import Selection

if TYPE_CHECKING:
    import httpx

ADDRESS = re.compile(r"(https?):/+", re.IGNORECASE)
"""Start of an address, which Path may have written with one slash."""
TOKEN = "LOOKONCE_TOKEN"
"""Environment variable: the token, on both sides."""
IN_FLIGHT = 2 * BATCH
"""Images that detect_files sends before the first answer, so that the server has batches to run."""


class Client:
    """A detector behind `lookonce serve`. Called like a Detector, it gives the same Detections.

    It may be called from several threads at once. While the server is busy, a call tries again until its timeout.

    Args:
        url: Address of the server, such as "http://127.0.0.1:8000".
        model: Name of one of its models; None: that of an address such as http://HOST/v1/models/NAME, else the first.
        token: The server's token; None: that of the environment variable LOOKONCE_TOKEN, if there is one.
        timeout: Seconds for the answer to a call.
        threshold: Lowest score of a detection, 0 to 1; None: the model's own thresholds.
        iou_threshold: Of two boxes of one class with a higher IoU than this, the better one is kept;
            None: the server's.
    Raises:
        UserError: no such server, a wrong token, an unknown model.

    >>> detections = Client("http://127.0.0.1:8000")("image.jpg")      # doctest: +SKIP
    """

    def __init__(self, url: str, model: str | None = None, *, token: str | None = None, timeout: float = 60,
                 threshold: float | None = None, iou_threshold: float | None = None) -> None:  # fmt: skip
        import httpx  # takes 0.1 s

        whole = ADDRESS.sub(lambda found: f"{found[1].lower()}://", str(url))
        self.url, _, in_url = whole.partition("/v1/models/")
        self.url, model = self.url.rstrip("/"), model or in_url.strip("/") or None
        if not ADDRESS.match(self.url):
            raise UserError(f"url: {url!r}; expected an address such as http://127.0.0.1:8000")
        if is_offline():
            raise UserError(f"{self.url}: not asked, because of --offline or {OFFLINE}")
        token = token if token is not None else os.environ.get(TOKEN)
        self.timeout = timeout
        try:
            self._http = httpx.Client(
                base_url=self.url, timeout=timeout, headers={"Authorization": f"Bearer {token}"} if token else {},
                limits=httpx.Limits(max_connections=4 * IN_FLIGHT),
            )  # fmt: skip
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise UserError(f"url: {url!r}: {error}; expected an address such as http://127.0.0.1:8000") from None
        served = self._ask("GET", "/v1/models")["models"]
        names = [each["name"] for each in served]
        if model is not None and model not in names:
            raise UserError(f"model: {model!r}; {self.url} has {', '.join(names)}")
        self._about = next(each for each in served if model in (None, each["name"]))
        own = [self._about["thresholds"][name] if threshold is None else threshold for name in self.labels]
        self.thresholds = np.array(own)
        iou = self._about["iou_threshold"] if iou_threshold is None else iou_threshold
        self.selection = Selection(float(self.thresholds.min()), iou)
        self._options = {"threshold": threshold, "iou": iou_threshold}

    @property
    def name(self) -> str:
        """Address of the server and name of the model."""
        return f"{self.url}/v1/models/{self._about['name']}"

    @property
    def digest(self) -> str | None:
        """ "sha256:..." of the model's files when the Client was made."""
        digest: str | None = self._about["digest"]
        return digest

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes that the model knows."""
        return tuple(self._about["labels"])

    def __repr__(self) -> str:
        """Return one line: the server, the model and its backend."""
        return f"Client({printable(self.name)}: {self._about['backend']})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageSource, *, threshold: float | None = None, labels: str | Sequence[str] | None = None
    ) -> Detections: ...

    @overload
    def __call__(
        self, images: Iterable[ImageSource], *, threshold: float | None = None,
        labels: str | Sequence[str] | None = None,
    ) -> list[Detections]: ...  # fmt: skip

    def __call__(
        self, images: ImageSource | Iterable[ImageSource], *, threshold: float | None = None,
        labels: str | Sequence[str] | None = None,
    ) -> Detections | list[Detections]:  # fmt: skip
        """Detections of one image, or a list of them for several: all that a Detector takes.

        Args:
            images: one image or several. Files are sent as they are, others as PNG, which changes no pixel.
            threshold: Lowest score in this call; None: the model's own thresholds.
            labels: Names of the classes wanted; None: all.
        Raises:
            ImageError: an image that cannot be read.
            UserError: what is no image, a wrong threshold or class, a server that does not answer.
        """
        options: dict[str, Any] = {**self._options, **({} if threshold is None else {"threshold": threshold})}
        if labels is not None:
            options["classes"] = [labels] if isinstance(labels, str) else list(labels)
        given = [cast(ImageSource, images)] if is_one(images) else list(cast(Iterable[ImageSource], images))
        with ThreadPoolExecutor(max(1, min(IN_FLIGHT, len(given)))) as pool:
            found = list(pool.map(lambda image: self._detect(image, options), given))
        return found[0] if is_one(images) else found

    def detect_files(
        self, paths: Iterable[Path | str], selection: Selection | None = None
    ) -> Iterator[tuple[str, Opened, Detections]]:
        """Yield (path, image, its detections) of files in order, as Detector.detect_files does.

        selection: use its thresholds instead of the model's own.
        """
        options: dict[str, Any] = self._options
        if selection is not None:
            options = {"threshold": selection.score_threshold, "iou": selection.iou_threshold}
        width, height = self._about["input_size"]
        pixel_range = self._about["pixel_range"]
        nothing = Detections([], [], [], self.labels)  # type: ignore[arg-type]
        coming: deque[tuple[str, Opened, Future[Detections] | None]] = deque()
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            try:
                for path, image in open_ahead(paths, (width, height), pixel_range=pixel_range):
                    sent = None if isinstance(image, ImageError) else pool.submit(self._detect, path, options)
                    coming.append((path, image, sent))
                    while len(coming) > IN_FLIGHT:
                        yield _arrived(coming.popleft(), nothing)
                while coming:
                    yield _arrived(coming.popleft(), nothing)
            finally:
                for *_, future in coming:
                    if future is not None:
                        future.cancel()

    def _detect(self, image: ImageSource, options: dict[str, Any]) -> Detections:
        """Return the detections on one image."""
        is_file = isinstance(image, Path | str)
        answer = self._ask("POST", "/v1/detect", _content(image), {
            "model": self._about["name"], "rounded": "false", **{k: v for k, v in options.items() if v is not None},
        }, str(image) if is_file else "the image")  # fmt: skip
        found = from_json(answer["images"][0]["detections"], self.labels)
        return replace(found, file=str(image)) if is_file else found

    def _ask(self, method: str, path: str, content: bytes | None = None, options: dict[str, Any] | None = None,
             image: str = "") -> Any:  # fmt: skip
        """Return the answer to a request, in JSON. Asks again while the server is busy, until the timeout."""
        import httpx

        until = time.monotonic() + self.timeout
        while True:
            try:
                response = self._http.request(method, path, content=content, params=options)
            except (httpx.HTTPError, UnicodeError) as error:
                reason = str(error) or type(error).__name__
                raise UserError(
                    f"{self.url}: does not answer ({reason}); is it the address of lookonce serve?"
                ) from None
            wait = min(_seconds(response.headers.get("retry-after")), 1.0)
            if response.status_code != 503 or time.monotonic() + wait > until:
                return self._result(response, image)
            time.sleep(wait)

    def _result(self, response: httpx.Response, image: str) -> Any:
        """Return the JSON of an answer. Raises the error that it names."""
        try:
            found = msgspec.json.decode(response.content)
        except msgspec.DecodeError:
            found = None
        if response.status_code == 200 and isinstance(found, dict):
            return found
        if not isinstance(found, dict) or "detail" not in found:
            raise UserError(f"{self.url}: answers {response.status_code}, and not as lookonce serve does")
        detail = str(found["detail"])
        if found.get("error") == "not_an_image" or (response.status_code == 413 and image):
            raise ImageError(image, detail.removeprefix("the image: "))
        raise UserError(f"{self.url}: {detail}")


def from_json(entries: Sequence[dict[str, Any]], labels: tuple[str, ...]) -> Detections:
    """Return Detections from what Detections.to_json or answers.exact gave."""
    boxes = np.array([entry["box"] for entry in entries], np.float32).reshape(-1, 4)
    scores = np.array([entry["score"] for entry in entries], np.float32)
    classes = np.array([entry["class_id"] for entry in entries], np.int64)
    children = None
    if any("backed_off_from" in entry for entry in entries):
        places = {name: n for n, name in enumerate(labels)}
        children = np.array([places.get(entry["backed_off_from"], -1) for entry in entries], np.int64)
    return Detections(boxes, scores, classes, labels, backed_off=children)


def _arrived(
    place: tuple[str, Opened, Future[Detections] | None], nothing: Detections
) -> tuple[str, Opened, Detections]:
    path, image, future = place
    return path, image, nothing if future is None else future.result()


def _content(image: ImageSource) -> bytes:
    """Return the bytes of a file, or of a PNG with the pixels of an image in memory."""
    if isinstance(image, Path | str):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError):
            load_rgb(image)  # says what is wrong
            raise
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if hasattr(image, "read") and not isinstance(image, Image.Image):
        return cast(bytes, image.read())
    deep = isinstance(image, np.ndarray) and image.dtype == np.uint16 and image.squeeze().ndim == 2
    pixels: NDArray[Any] = image.squeeze() if deep else load_rgb(image)  # type: ignore[union-attr,assignment]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _seconds(text: str | None) -> float:
    """Return the seconds that Retry-After names, 1 if it names none."""
    try:
        found = float(text or "")
    except ValueError:
        return 1.0
    return found if math.isfinite(found) and found > 0 else 1.0
