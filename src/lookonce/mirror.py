"""One request to one mirror: over http or https, to the file itself and not to a page about it.

The only module that opens a connection. An answer is good, or `Broken` (asking again may help), or
`Refused` (this mirror will not give the file).
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import string
import urllib.error
import urllib.request
from typing import NoReturn
from urllib.parse import quote, urljoin, urlsplit

from lookonce import __version__

TIMEOUT = 30.0
"""Seconds without a byte after which a mirror counts as silent."""
REDIRECTS = 5
"""How often one mirror may send on."""

Response = http.client.HTTPResponse
"""An answer, its body unread."""


class Refused(Exception):
    """This mirror will not give the file."""


class Broken(Exception):
    """The transfer broke off, or never began; trying again may help."""


def ask(url: str, start: int, sizes: tuple[int, ...]) -> Response | None:
    """The answer to a request for everything from byte `start` on. None: the mirror says that nothing is missing."""
    headers = {"User-Agent": f"lookonce/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    for _ in range(REDIRECTS + 1):
        try:
            answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
            assert isinstance(answer, Response)
            return answer
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (301, 302, 303, 307, 308):
                    url = _moved(url, error.headers.get("Location"))
                    continue
                if error.code == 416 and "Range" in headers:
                    if start in sizes and error.headers.get("Content-Range", "").endswith(f"/{start}"):
                        return None
                    headers.pop("Range")  # what stands here is no beginning of what it has: the whole, then
                    continue
                _no(error.code, error.reason)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _no_answer(error)
    raise Refused(f"redirects more than {REDIRECTS} times")


def _opener() -> urllib.request.OpenerDirector:
    """http and https, the environment's proxy, and nothing else: no file, no ftp, no redirects of its own."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
                    urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _moved(url: str, location: str | None) -> str:
    """Where a redirect leads."""
    if not location:
        raise Refused("redirects to nowhere")
    try:
        to = urljoin(url, quote(location, safe=string.punctuation))
        scheme = urlsplit(to).scheme
    except ValueError:
        raise Refused("redirects to something that is no address") from None
    if scheme not in ("http", "https"):
        raise Refused(f"redirects to {to[:80]}, which is neither http nor https")
    return to


def _no(code: int, reason: str) -> NoReturn:
    """Raise for an answer that is no file: the server's own trouble may pass, anything else will not."""
    said = f"answers {code} {reason}".rstrip()
    raise Broken(said) if code >= 500 or code in (408, 429) else Refused(said)


def _no_answer(error: Exception) -> NoReturn:
    """Raise for a request without an answer."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        raise Broken(f"silent for {TIMEOUT:g} s") from None
    said = " ".join(str(getattr(cause, "strerror", None) or cause).split()) or type(cause).__name__
    hopeless = (
        socket.gaierror,
        ConnectionRefusedError,
        ssl.SSLCertVerificationError,
        ValueError,
        http.client.InvalidURL,
    )
    raise (Refused(said) if isinstance(cause, hopeless) else Broken(said)) from None


def extent(response: Response, start: int) -> tuple[int, int | None]:
    """Where the answer's first byte stands in the file, and how long the file is, where that is said."""
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise Refused(f"sends it packed as {coding}, which was not asked for")
    if response.status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if said is None or int(said[1]) != start:
            raise Refused("sends another part of the file than was asked for")
        return start, None if said[2] == "*" else int(said[2])
    if response.status != 200:
        raise Refused(f"answers {response.status} {response.reason}")
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None  # a server that ignores ranges sends all of it


def refuse_text(head: bytes, kind: str) -> None:
    """Refuse a page in place of the file: all files on offer have zero bytes near their beginning, text has none."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if kind == "text/html" or start.startswith((b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")):
        raise Refused("sends a web page instead of the file")
    if head and b"\0" not in head:
        raise Refused("sends text instead of the file")


def read(response: Response, most: int) -> bytes:
    """The next bytes; nothing at the end, also where the connection ends early: the length tells."""
    try:
        return response.read(most)
    except TimeoutError:
        raise Broken(f"silent for {TIMEOUT:g} s") from None
    except (OSError, http.client.HTTPException):
        return b""
