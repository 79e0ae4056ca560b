"""serve: a detector behind HTTP, with a page for people."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lookonce.commands.arguments import several
from lookonce.errors import ConfigError, UserError, plural
from lookonce.inference.backends.settings import BackendName, Precision
from lookonce.inference.detector import Detector
from lookonce.inference.pretrained_models import model_path

if TYPE_CHECKING:
    from lookonce.server.api import Service
    from lookonce.server.app import Access

log = logging.getLogger("lookonce")
TOKEN = "LOOKONCE_TOKEN"
"""Environment variable: the token, which others then do not see in the list of processes."""
LABEL_STUDIO_KEY = "LABEL_STUDIO_API_KEY"
PACKAGES = ("starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client")
SHORTEST_TOKEN = 8


@dataclass(frozen=True)
class Served:
    """The result of `lookonce serve`, when it ends."""

    requests: int
    images: int

    def to_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {"requests": self.requests, "images": self.images}

    def __str__(self) -> str:
        return f"stopped after {plural(self.requests, 'request')} and {plural(self.images, 'image')}"


def serve(
    model: Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    no_token: bool = False,
    threshold: float | None = None,
    iou_threshold: float = 0.45,
    batch: int = 8,
    queue: int = 64,
    timeout: float = 30,
    max_mb: int = 32,
    max_pixels: int = 50_000_000,
    max_images: int = 32,
    label_studio: str | None = None,
    backend: BackendName = "auto",
    device: str | None = None,
    precision: Precision = "auto",
) -> Served:
    """Serve a detector over HTTP, with a page in the browser.

    POST an image to /v1/detect, or open the address in a browser. /docs lists everything else. Nothing is stored, and
    nothing is sent to another machine. Ctrl-C or SIGTERM ends the server after it has answered what it accepted; SIGHUP
    loads the models again without downtime.

    Args:
        model: Name of a published model, model file, run folder, Darknet .cfg, or exported .onnx or .xml. Several are
            served under their names: cells=runs/cells-1 parts=parts.xml.
        host: Address to listen on; 0.0.0.0 is every network of this machine, and then a token is needed.
        port: Port to listen on; 0: a free one.
        token: What clients have to show (Authorization: Bearer TOKEN); none: that of the environment variable
            LOOKONCE_TOKEN, which other users cannot see.
        no_token: Let everybody on the network use the server.
        threshold: Lowest score of a detection where a request names none; none: the model's own thresholds.
        iou_threshold: Non-maximum suppression where a request names none.
        batch: Most images that run together.
        queue: Most images that wait; further requests get 503 with Retry-After at once.
        timeout: Seconds for the body of a request to arrive, and again for its answer.
        max_mb: Most megabytes of a request.
        max_pixels: Most pixels of an image.
        max_images: Most images of a request.
        label_studio: Address of a Label Studio server, whose images may be fetched with the key in
            LABEL_STUDIO_API_KEY.
        backend: Library that runs the network; auto: the fastest that is installed.
        device: cpu, cuda, or tensorrt (onnxruntime only); none: the backend's default.
        precision: fp32, bf16 (boxes within 1 px of fp32), or int8 (its cost in mAP is logged); auto: the fastest that
            the processor supports; int8 only if training or an export left an int8 form beside the model.
    Returns:
        The number of requests and images, when the server has ended.
    Raises:
        UserError: a model that cannot be read, a port that is taken, an open address without a token, missing packages.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"serve: {missing[0]} is not installed; run: pip install 'lookonce[serve]'")
    from lookonce.server.api import Service
    from lookonce.server.app import Access
    from lookonce.server.label_studio import LabelStudio
    from lookonce.server.limits import Limits
    from lookonce.server.metrics import Metrics
    from lookonce.server.models import ServedModel

    limits = Limits(batch, queue, timeout, max_mb, max_pixels, max_images)
    token = _checked_token(host, token, no_token)
    studio = None if label_studio is None else LabelStudio(_address(label_studio), os.environ.get(LABEL_STUDIO_KEY))
    metrics, models = Metrics(), {}

    def opening(path: Path) -> Callable[[], Detector]:
        return lambda: Detector(path, backend, device=device, precision=precision, throughput=True,
                                threshold=threshold, iou_threshold=iou_threshold)  # fmt: skip

    for name, path in _named(several(model)).items():
        models[name] = ServedModel(name, opening(path), limits, metrics.batches.labels(name).observe)
    return _run(Service(models, limits, metrics, token is not None), Access(host, token, studio), port)


def _run(shared: Service, access: Access, port: int) -> Served:
    """Serve until a signal ends it."""
    import asyncio

    from lookonce.server.connections import Server, listen

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not a line for each damaged request
    with listen(access.host, port) as sock:
        host, port = sock.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("%s: %s. Open it in a browser, or POST images to /v1/detect; %s/docs explains all. Ctrl-C stops.",
                 address, ", ".join(shared.models), address)  # fmt: skip
        asyncio.run(Server(shared, access).serve([sock]))
    samples = [each for family in shared.metrics.registry.collect() for each in family.samples]
    requests, images = (int(sum(each.value for each in samples if each.name == name))
                        for name in ("lookonce_requests_total", "lookonce_images_total"))  # fmt: skip
    return Served(requests, images)


def _named(given: Sequence[str | Path]) -> dict[str, Path]:
    """Return the files of models by name: that before "=", else the name of the file or folder."""
    found: dict[str, Path] = {}
    for each in map(str, given):
        name, equals, path = each.partition("=")
        if not equals or Path(each).exists() or "/" in name:
            name, path = "", each
        file = model_path(path)
        name = name or _plain(Path(path).expanduser().resolve())
        if name in found:
            raise ConfigError(f"model: two have the name {name!r}; give each its own, as in NAME={path}")
        found[name] = file
    if not found:
        raise ConfigError("model: none given; expected a model file, a run folder or a published model")
    return found


def _plain(path: Path) -> str:
    """Return the name of a file or folder with the letters that an address may have."""
    name = path.stem if path.is_file() or path.suffix in (".weights", ".cfg", ".safetensors") else path.name
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip(".-_") or "model"


def _checked_token(host: str, token: str | None, no_token: bool) -> str | None:
    """Return the token of the option or the environment. Raises ConfigError if one is needed."""
    from lookonce.server.guard import is_loopback

    token = token if token is not None else os.environ.get(TOKEN) or None
    if token is not None and no_token:
        raise ConfigError("no-token: a token is given as well; leave out one of them")
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()
                              or " " in token):  # fmt: skip
        raise ConfigError(f"token: expected at least {SHORTEST_TOKEN} characters of ASCII without spaces, for example "
                          "of: python -c 'import secrets; print(secrets.token_urlsafe())'")  # fmt: skip
    if token is None and not no_token and not is_loopback(host):
        raise ConfigError(f"host: {host} can be reached from other machines; set a token (--token, or {TOKEN} in the "
                          "environment), or say --no-token to let everybody use the server")  # fmt: skip
    return token


def _address(given: str) -> str:
    if not given.lower().startswith(("http://", "https://")):
        raise ConfigError(f"label-studio: {given!r}; expected an address such as http://localhost:8080")
    return given
