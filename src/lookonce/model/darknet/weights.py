"""Where a network's numbers came from: the cfg and the header of its weights, so that both can be written as they were.

Source: darknet/src/parser.c, load_weights_upto and save_weights_upto.

Darknet's .weights: a header, then float32 for each convolution in layer order, every byte accounted for.

Each convolution: bias [F]; with batch norm its scales, means and variances, each [F]; then the weights [F, C, k, k].
Numbers go straight from the file into the network and back, without a copy between.
Source: darknet/src/parser.c, load_convolutional_weights and save_convolutional_weights.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from io import BufferedReader
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lookonce.errors import UserError
from lookonce.files import replacing
from lookonce.model.darknet.cfg import Cfg
from lookonce.model.layers import Conv, Layer, Region, floats_by_layer
from lookonce.model.network import DARKNET, BatchNorm, Convolution, Network


class Header(NamedTuple):
    """The start of a .weights file: a version, and the images that training has seen.

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


class WeightsError(UserError):
    """A .weights file that does not hold what the cfg asks for."""


def read_weights(path: Path, network: Network, layers: int | None = None) -> Header:
    """Fill a network from a file; its batch norms then read their variances as Darknet does.

    Args:
        path: a .weights file, or a prefix of one such as darknet19_448.conv.23.
        network: on the CPU, float32. It is written to, and left alone if the file's length is wrong.
        layers: fill the first so many layers (Darknet's count, pools and routes too) from a prefix file; none: all.
    Raises:
        WeightsError: too short, too long, cut off, a number that is not finite, a negative variance.
    """
    header = check_weights(path, network.layers, network.channels, layers)
    try:
        with path.open("rb") as file:
            file.seek(header.length)
            for index, convolution in _convolutions(network, layers or len(network.layers)):
                for tensor in _parts(convolution):
                    _fill(tensor, file, f"{path}: layer {index} (convolutional)")
                if convolution.norm is not None:
                    _check_variance(convolution.norm, f"{path}: layer {index} (convolutional)")
                    convolution.norm.sigma = DARKNET
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    return header


def check_weights(path: Path, layers: tuple[Layer, ...], channels: int = 3, count: int | None = None) -> Header:
    """Read a file's header. Raise WeightsError unless the rest has the length of the first `count` layers' numbers."""
    if count is not None and not 0 < count <= len(layers):
        raise WeightsError(f"layers={count}; expected 1 to {len(layers)}, the layers of this network")
    try:
        with path.open("rb") as file:
            header = _header(file.read(20), path)
        size = path.stat().st_size - header.length
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    _check_length(path, size, layers, floats_by_layer(layers, channels), count)
    return header


def numbers_in(path: Path) -> int:
    """How many whole numbers a file holds behind its header. Raises WeightsError for what is no such file."""
    try:
        with path.open("rb") as file:
            header = _header(file.read(20), path)
        return (path.stat().st_size - header.length) // 4
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None


def layers_of(numbers: int, layers: tuple[Layer, ...], channels: int = 3) -> tuple[Layer, ...] | None:
    """The network of exactly so many numbers that starts as `layers` do, for an input of so many channels; None: none.

    It is `layers` themselves, their start alone (a prefix file), or all of them with another last convolution,
    as another number of classes or anchors makes it: then the result ends with that convolution.
    """
    counts = floats_by_layer(layers, channels)
    ends = list(accumulate(counts))
    if numbers == ends[-1]:
        return layers
    if numbers > 0 and numbers in ends:
        return layers[: ends.index(numbers) + 1]
    if (found := _last_filters(numbers, layers, counts)) is None:
        return None
    last, filters = found
    convolution = layers[last]
    assert isinstance(convolution, Conv)  # the last one of them
    return (*layers[:last], replace(convolution, filters=filters))


def write_weights(path: Path, network: Network, header: Header) -> None:
    """Write a network's numbers, whole or not at all. What was read from a file comes out byte by byte.

    Variances of other conventions than Darknet's are written so that Darknet's sqrt(v) + 1e-6 divides by the same.
    """
    with replacing(path) as beside, beside.open("wb") as file:
        file.write(header.pack())
        for _, convolution in _convolutions(network, len(network.layers)):
            for tensor in _parts(convolution):
                if convolution.norm is not None and tensor is convolution.norm.running_var:
                    tensor = darknet_variance(convolution.norm)
                array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
                file.write(array.astype("<f4", copy=False).data)


def darknet_variance(norm: BatchNorm) -> Tensor:
    """The variance v [C] for which Darknet's divisor sqrt(v) + 1e-6 is this batch norm's."""
    if norm.sigma == DARKNET:
        return norm.running_var
    inside, outside = norm.sigma
    divisor = (norm.running_var.double() + inside).sqrt() + outside
    return (divisor - DARKNET.outside).clamp(min=0).square().float()


def _convolutions(network: Network, count: int) -> Iterator[tuple[int, Convolution]]:
    """(layer's index, convolution) among the first `count` layers."""
    indices = [index for index, layer in enumerate(network.layers) if isinstance(layer, Conv)]
    for index, convolution in zip(indices, network.convolution_list(), strict=True):
        if index < count:
            yield index, convolution


def _parts(convolution: Convolution) -> Iterator[Tensor]:
    """The tensors of a convolution in the file's order."""
    if convolution.norm is None:
        assert convolution.conv.bias is not None  # plain convolutions have one
        yield convolution.conv.bias
    else:
        norm = convolution.norm
        yield from (norm.bias, norm.weight, norm.running_mean, norm.running_var)
    yield convolution.conv.weight


def _fill(tensor: Tensor, file: BufferedReader, place: str) -> None:
    """Read a tensor's numbers into its own memory."""
    array = tensor.detach().numpy()
    if not array.flags.c_contiguous or array.dtype.str != "<f4":
        raise AssertionError("weights are read into contiguous little-endian float32 only")
    if file.readinto(array.data) != array.nbytes:
        raise WeightsError(f"{place}: the file became shorter while it was read")
    if not all(map(math.isfinite, tensor.detach().aminmax())):  # takes no memory of its own, and meets every nan
        raise WeightsError(f"{place}: numbers that are not finite; its training diverged, or these are other bytes")


def _check_variance(norm: BatchNorm, place: str) -> None:
    if bool((norm.running_var < 0).any()):
        raise WeightsError(f"{place}: a negative variance; these weights belong to another cfg of the same size")


def _header(start: bytes, path: Path) -> Header:
    if start.lstrip()[:1] == b"<" or start.startswith(b"version https"):
        raise WeightsError(f"{path}: a web page or a pointer to a file, not weights; download the file itself")
    try:
        return read_header(start)
    except struct.error:
        raise WeightsError(f"{path}: {len(start)} bytes; a .weights file starts with a header of 16 or 20") from None


def _check_length(path: Path, size: int, layers: tuple[Layer, ...], counts: list[int], asked: int | None) -> None:
    """Raise WeightsError unless the `size` bytes after the header are the numbers of the first `asked` layers.

    counts: the numbers of each layer.
    """
    ends = list(accumulate(counts))
    need = ends[-1 if asked is None else asked - 1]
    if size == 4 * need:
        return
    have, odd = divmod(size, 4)
    what = "the cfg" if asked is None else f"layers={asked}"
    said = f"{path}: {have:,} numbers{f' and {odd} of 4 bytes' if odd else ''}, and {what} needs {need:,}"
    if have < need:
        index = next(i for i, end in enumerate(ends) if end > have)
        said += f"; they run out in layer {index} (convolutional), at {have - ends[index] + counts[index]:,} of "
        said += f"{counts[index]:,}"
    else:
        said += f"; {have - need:,} are left over"
    raise WeightsError(f"{said}; {_cause(have, odd, layers, counts, asked)}")


def _cause(have: int, odd: int, layers: tuple[Layer, ...], counts: list[int], asked: int | None) -> str:
    """The likely reason for a wrong length, and the remedy."""
    ends = list(accumulate(counts))
    need = ends[-1 if asked is None else asked - 1]
    if odd:
        return "no whole number of float32: cut off on its way? Download it again"
    if have and have in ends:
        index = ends.index(have) + 1
        whole = "the whole network: leave layers out" if have == ends[-1] else f"the first {index} layers: "
        return f"they are exactly those of {whole}" + ("" if have == ends[-1] else f"give layers={index}")
    if asked is None and (found := _other_filters(have, layers, counts)):
        return found
    if abs(have - need) == 1:
        return "one number apart: is the version in its header the one that wrote it (16 or 20 bytes)?"
    return "cut off on its way, or the weights of another network"


def _last_filters(have: int, layers: tuple[Layer, ...], counts: list[int]) -> tuple[int, int] | None:
    """(index of the last convolution, its filters if that alone differed); None: no number of filters fits."""
    last = max((i for i, layer in enumerate(layers) if isinstance(layer, Conv)), default=0)
    layer = layers[last]
    if not isinstance(layer, Conv):
        return None
    filters, rest = divmod(have - sum(counts) + counts[last], counts[last] // layer.filters)
    return None if rest or filters < 1 else (last, filters)


def _other_filters(have: int, layers: tuple[Layer, ...], counts: list[int]) -> str:
    """What the last convolution would be if that alone differed; empty where nothing fits."""
    if (found := _last_filters(have, layers, counts)) is None:
        return ""
    last, filters = found
    end = layers[-1]
    if not isinstance(end, Region):
        return f"they fit filters={filters} in layer {last}, the last convolution: another number of classes?"
    classes, rest = divmod(filters, len(end.anchors))
    if rest or classes < 6:
        return ""
    return f"they fit classes={classes - 5} (filters={filters} in layer {last}): take the cfg they were trained with"
