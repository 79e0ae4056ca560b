"""Where a network's numbers came from: the cfg and the header of its weights, so that both can be written as they were.

Source: darknet/src/parser.c, load_weights_upto and save_weights_upto.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lookonce.darknet.cfg import Cfg


class Header(NamedTuple):
    """The start of a .weights file: a version, and the pictures that training has seen.

    seen takes 64 bits from version 0.2 on and 32 before. Versions from 1000 on say that the matrices of
    connected layers lie transposed; they have the short form, and convolutions are the same in both.
    """

    major: int = 0
    minor: int = 2
    revision: int = 0
    seen: int = 0

    @property
    def transposed(self) -> bool:
        """Whether connected layers lie transposed: of no account to networks of convolutions, and kept."""
        return self.major > 1000 or self.minor > 1000

    @property
    def length(self) -> int:
        """Bytes that it takes: 20 with a 64-bit seen, 16 with a 32-bit one."""
        wide = self.major * 10 + self.minor >= 2 and self.major < 1000 and self.minor < 1000
        return 20 if wide else 16

    def pack(self) -> bytes:
        """The bytes of the file. A count that 32 bits cannot hold goes into a header of version 0.2."""
        if self.length == 16 and self.seen >= 2**32:
            return Header(seen=self.seen).pack()
        return struct.pack("<3iQ" if self.length == 20 else "<3iI", *self)


def read_header(data: bytes) -> Header:
    """The header in the first 20 bytes of a file (16 where it has no more). Raises struct.error for fewer."""
    version = Header(*struct.unpack_from("<3i", data))
    (seen,) = struct.unpack_from("<Q" if version.length == 20 else "<I", data, 12)
    return version._replace(seen=seen)


class Origin(NamedTuple):
    """The pair of files that a network was read from."""

    cfg: Cfg
    header: Header
