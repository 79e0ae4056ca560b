"""Limits of the server, and the error that a request gets."""

from __future__ import annotations

from dataclasses import dataclass

from lookonce.data.images import BATCH, MOST_PIXELS
from lookonce.errors import ConfigError, printable


@dataclass(frozen=True)
class Limits:
    """How much the server takes on. Raises ConfigError for a number out of range."""

    batch: int = BATCH
    """Most images that run together; detect and benchmark use the same number."""
    queue: int = 64
    """Most images of a model that wait; the next request is refused."""
    timeout: float = 30.0
    """Seconds for the body of a request to arrive, and again for its answer."""
    max_mb: int = 32
    """Most megabytes (2^20 bytes) of a request."""
    max_pixels: int = 50_000_000
    """Most pixels of an image, by its header, before it is decoded."""
    max_images: int = 32
    """Most images of a request."""

    def __post_init__(self) -> None:
        ranges = {"batch": (1, 1024), "queue": (1, 100_000), "timeout": (0.1, 3600), "max_mb": (1, 1024),
                  "max_pixels": (1, MOST_PIXELS), "max_images": (1, 1024)}  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name.replace('_', '-')}: {value}; expected {low:,} to {high:,}")

    @property
    def max_bytes(self) -> int:
        """Most bytes of a request."""
        return self.max_mb << 20

    @property
    def bodies(self) -> int:
        """Most bytes of all bodies that are in memory at once: eight of the largest, at least 256 MB."""
        return max(8 * self.max_bytes, 256 << 20)


KINDS = {
    400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "request_timeout", 409: "conflict", 411: "length_required", 413: "too_large", 415: "unsupported_type",
    422: "not_an_image", 500: "internal_error", 502: "bad_gateway", 503: "busy", 504: "timeout",
}  # fmt: skip
"""The "error" of an answer, by its status."""


class RequestError(Exception):
    """A request that is not answered with a result: {"error", "detail"} and a status.

    Args:
        status: of HTTP, one of KINDS.
        detail: place, what was found, what is expected; one printable line.
        retry_after: seconds after which the client may try again.
        error: a word for programs, if not that of the status.
    """

    def __init__(self, status: int, detail: str, retry_after: int | None = None, error: str | None = None) -> None:
        line = printable(detail)
        super().__init__(line if len(line) <= 600 else f"{line[:400]} ... {line[-190:]}")
        self.status, self.retry_after = status, retry_after
        self.error = error or KINDS[status]

    def to_json(self) -> dict[str, str]:
        """Return the body of the answer."""
        return {"error": self.error, "detail": str(self)}
