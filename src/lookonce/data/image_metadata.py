"""The metadata of an image file, read without decoding it: its orientation, and whether its end is there.

Damaged metadata never makes an image unreadable: what cannot be read counts as absent.
Sources: EXIF 2.3, section 4.6; PNG specification, section 11; JPEG (ITU T.81), annex B.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO

ORIENTATION = 0x0112
MAX_METADATA = 1 << 20
"""Bytes of one block of metadata that are read."""
TAIL = 4096
"""Bytes at the end of a file in which its end marker is looked for first."""
PNG_KEYS = ("Raw profile type exif", "Raw profile type APP1", "XML:com.adobe.xmp")
"""Names of texts of a PNG in which orientation() looks."""
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']([1-8])["']|>\s*([1-8])\s*<)""")
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
"""A marker in JPEG data; FF 00 is data, FF D0 to FF D7 restart it."""


def orientation(info: Mapping[Any, Any]) -> int:
    """Return the orientation of an image by its metadata, 1 (upright) to 8 as in EXIF; 1 if none can be read.

    EXIF comes first, then a PNG profile with EXIF in it, then XMP. info: Image.info, or what png_chunks found.
    """
    exif = info.get("exif") or _profile(info.get("Raw profile type exif") or info.get("Raw profile type APP1"))
    if (found := _exif_orientation(exif)) is not None:
        return found
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    match = _XMP.search(text) if isinstance(text, bytes) else None
    return int(match[1] or match[2]) if match else 1


def _exif_orientation(exif: object) -> int | None:
    """Return the orientation in an EXIF block, or None."""
    if not isinstance(exif, bytes):
        return None
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, first)
        for place in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, place)
            if tag == ORIENTATION:
                (value,) = struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], data, place + 8)
                return int(value) if 1 <= value <= 8 else None
    except (struct.error, KeyError):
        pass
    return None


def _profile(text: object) -> bytes | None:
    """Decode an ImageMagick profile: a line with its kind, one with its length, then hexadecimal digits."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text.strip("\n").split("\n")[2:]))
    except ValueError:
        return None


def png_chunks(file: BinaryIO) -> tuple[bool, dict[str, bytes | str]]:
    """Walk the chunks of a PNG; return (whether the last one is there, the metadata as orientation() takes it)."""
    size = file.seek(0, os.SEEK_END)
    place, found = len(PNG_START), dict[str, bytes | str]()
    while place + 8 <= size:
        file.seek(place)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind == PNG_END:
            return True, found
        if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and length <= MAX_METADATA:
            found |= _png_text(kind, file.read(length))
        place += 12 + length
    return False, found


def _png_text(kind: bytes, body: bytes) -> dict[str, bytes | str]:
    """Return the metadata in one chunk; nothing if it is damaged."""
    if kind == b"eXIf":
        return {"exif": body}
    key, _, text = body.partition(b"\0")
    name = key.decode("latin-1")
    if name not in PNG_KEYS:  # each may unpack to MAX_METADATA
        return {}
    if kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        packed, text = kind == b"zTXt", text[1:] if kind == b"zTXt" else text
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, MAX_METADATA)
        except zlib.error:
            return {}
    return {name: text}


def has_end(file: BinaryIO) -> bool:
    """Return whether the end of an image is there. False is not certain: only decoding tells.

    For JPEG, PNG and WebP; True for any other format. Bytes behind the end are allowed, such as the video of a phone's
    motion photo.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return bool(int.from_bytes(head[4:8], "little") + 8 <= size)
    marker = JPEG_END if head[:2] == JPEG_START else PNG_END if head[:8] == PNG_START else b""
    file.seek(max(size - TAIL, 0))
    if marker in file.read(TAIL):
        return True
    if marker == PNG_END:
        return png_chunks(file)[0]
    file.seek(0)
    return _jpeg_ends(file.read())


def _jpeg_ends(data: bytes) -> bool:
    """Walk the markers of a JPEG until the one at its end."""
    place = len(JPEG_START)
    while match := _MARKER.search(data, place):
        if match[1] == JPEG_END[1:]:
            return True
        place = match.end()
        if match[1] != b"\x01" and place + 2 <= len(data):  # every other marker is followed by a length
            place += int.from_bytes(data[place : place + 2], "big")
    return False
